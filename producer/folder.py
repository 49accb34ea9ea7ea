"""What a client can tell of an adapter folder without torch: its config, its header, its digest.

Refuses early what no worker would serve (no safetensors, no JSON config); judges nothing that needs the base model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lorapool.shared.digest import adapter_digest, read_config, read_header
from lorapool.shared.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Facts:
    """Fields of an AdapterRecord; ``base_model`` is what the adapter's own config says, empty if nothing."""

    uri: str
    digest: str
    rank: int = 0
    base_model: str = ""


def describe(uri: str, digest: str | None) -> Facts:
    """What can be told of the folder behind ``uri``. Raises CheckpointError, InvalidRequest."""
    folder = local_folder(uri)
    if folder is None or (digest and not folder.exists()):
        if not digest:
            raise InvalidRequest(
                f"uri = {uri!r}: not a folder this client can read; give digest= (sha256) to register it unseen"
            )
        return Facts(uri, digest)
    config = read_config(folder)
    read_header(folder)
    found = adapter_digest(folder)
    if digest and digest != found:
        raise InvalidRequest(f"digest = {digest!r}: {folder} has digest {found}")
    rank, base_model = config.get("r"), config.get("base_model_name_or_path")
    return Facts(uri, found, rank if isinstance(rank, int) else 0, base_model if isinstance(base_model, str) else "")


def as_uri(uri: str | Path) -> str:
    """A path becomes an absolute file:// URI; a URI stays."""
    text = str(uri)
    return text if "://" in text else Path(text).expanduser().resolve().as_uri()


def local_folder(uri: str) -> Path | None:
    """The folder that a file:// URI names, or None for another scheme."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" and parts.netloc in ("", "localhost") else None
