"""Where the base model's files are, and what identifies them.

A folder is taken as it is; anything else is a hub id, fetched once into the hub's own cache. The digest covers config
and weights, so that two workers of one pool agree on them whatever their folders are called. Loads no weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from lorapool.shared.errors import BaseModelError

_CHUNK_BYTES = 8 << 20
_WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model on this machine's disk."""

    name: str  # the folder's name, or the hub id
    revision: str
    folder: Path

    @classmethod
    def locate(cls, wanted: str) -> BaseModel:
        """Find or fetch it. Raises BaseModelError if there is no such folder or hub model."""
        cls.check_folder(wanted)
        folder = Path(wanted).expanduser()
        if folder.is_dir():
            return cls(folder.resolve().name, "", folder.resolve())
        name, _, revision = wanted.partition("@")
        return cls(name, revision, _fetch(name, revision or None))

    @staticmethod
    def check_folder(wanted: str) -> None:
        """Raises BaseModelError for what looks like a folder and is none."""
        if wanted.startswith(("/", ".", "~")) and not Path(wanted).expanduser().is_dir():
            raise BaseModelError(f"base model {wanted!r} is not a folder on this machine")

    @property
    def nbytes(self) -> int:
        """Bytes of its weights on disk."""
        return sum(path.stat().st_size for path in self._weights())

    def names(self) -> frozenset[str]:
        """What adapters may call it in their ``base_model_name_or_path``."""
        own = _config(self.folder / "config.json").get("_name_or_path")
        return frozenset({self.name, *([own] if isinstance(own, str) and own else [])})

    def digest(self, advance: Callable[[int], None] = lambda _: None) -> str:
        """sha256 over config.json and every safetensors file; ``advance`` is told the bytes read.

        Raises BaseModelError if there is none."""
        digest = sha256(json.dumps(_substance(_config(self.folder / "config.json")), sort_keys=True).encode())
        for path in self._weights():
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    advance(len(chunk))
        return digest.hexdigest()

    def _weights(self) -> list[Path]:
        paths = sorted(self.folder.glob("*.safetensors"))
        if not paths:
            raise BaseModelError(f"base model folder {self.folder} holds no *.safetensors")
        return paths


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BaseModelError(f"base model has no readable config.json at {path}: {error}") from None
    if not isinstance(config, dict):
        raise BaseModelError(f"{path} is a JSON {type(config).__name__}, expected an object")
    return config


def _substance(config: dict[str, Any]) -> dict[str, Any]:
    """The config without what only says where it came from."""
    return {name: value for name, value in config.items() if name not in {"_name_or_path", "transformers_version"}}


def _fetch(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(_WANTED)))
    except Exception as error:  # the hub client raises errors of several libraries
        raise BaseModelError(
            f"base model {name!r} is neither a folder here nor to be had from the hub: {error}"
        ) from error
