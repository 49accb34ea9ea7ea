"""What a client can read of an adapter folder without torch: its config, its header, its digest.

Refuses early what no worker would serve (no safetensors, no JSON config); judges nothing that needs the base model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from lorapool.shared.catalog.adapter_record import told_by
from lorapool.shared.digest import (
    CONFIG_NAME,
    MAX_CONFIG_BYTES,
    MAX_WEIGHTS_BYTES,
    WEIGHTS_NAME,
    adapter_digest,
    digest_of,
    json_object,
    read_config,
    read_header,
)
from lorapool.shared.errors import InvalidRequest
from lorapool.shared.prompt_format import MAX_TEMPLATE_BYTES, TEMPLATE_NAME, PromptFormat, format_in
from lorapool.shared.remote import RemoteFolder, check_uri, is_remote


@dataclass(frozen=True, slots=True)
class Facts:
    """Where it is, what it holds, and the fields of an AdapterRecord that it tells itself."""

    uri: str
    digest: str
    from_files: Mapping[str, Any] = field(default_factory=dict)


def describe(uri: str, digest: str | None) -> Facts:
    """What can be told of the folder behind ``uri``. Raises CheckpointError, AdapterUnavailable, InvalidRequest."""
    if is_remote(uri):
        return _remote(check_uri(uri), digest)
    folder = local_folder(uri)
    if folder is None or (digest and not _is_there(folder)):
        if not digest:
            raise InvalidRequest(
                f"uri = {uri!r}: not a folder this client can read; give digest= (sha256) to register it unseen"
            )
        return Facts(uri, digest)
    config = read_config(folder)
    read_header(folder)
    digest_now = adapter_digest(folder)
    if digest and digest != digest_now:
        raise InvalidRequest(f"digest = {digest!r}: {folder} has digest {digest_now}")
    return Facts(uri, digest_now, {**told_by(config), "prompt_format": format_in(folder)})


def _is_there(folder: Path) -> bool:
    try:
        return folder.exists()
    except OSError:  # it may be, for a worker
        return False


def _remote(uri: str, digest: str | None) -> Facts:
    """With a digest the place is not asked: workers read it. Without one its bytes go through here once."""
    if digest:
        return Facts(uri, digest)
    folder = RemoteFolder(uri)
    config = json_object(f"{uri}/{CONFIG_NAME}", folder.read(CONFIG_NAME, MAX_CONFIG_BYTES))
    digest_now = digest_of(config, folder.chunks(WEIGHTS_NAME, MAX_WEIGHTS_BYTES))
    template = folder.read(TEMPLATE_NAME, MAX_TEMPLATE_BYTES) if folder.has(TEMPLATE_NAME) else b""
    form = PromptFormat(template=template.decode(errors="replace")) if template.strip() else None
    return Facts(uri, digest_now, {**told_by(config), "prompt_format": form})


def as_uri(uri: str | Path) -> str:
    """A path becomes an absolute file:// URI; a URI stays. Raises InvalidRequest for what is no path here."""
    text = str(uri)
    try:
        return text if "://" in text else absolute(text).as_uri()
    except (OSError, ValueError, RuntimeError) as error:  # no such user's home, a surrogate, NUL
        raise InvalidRequest(f"uri = {text!a:.200}: not a path on this machine ({error!a:.200})") from None


def expanded(path: str | Path) -> Path:
    """With the home folder for ``~``. Raises InvalidRequest where that is nobody's here."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InvalidRequest(f"path {str(path)!a:.200}: no such user on this machine; write the folder out") from None


def absolute(path: str | Path) -> Path:
    """The path as every process on this machine sees it."""
    return Path(path).expanduser().resolve()


def local_folder(uri: str) -> Path | None:
    """The folder that a file:// URI names, or None for another scheme."""
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise InvalidRequest(f"uri = {uri!a:.200}: {error!a:.200}") from None
    return Path(unquote(parts.path)) if parts.scheme == "file" and parts.netloc in ("", "localhost") else None
