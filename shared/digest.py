"""Digest: what an adapter folder holds, told without torch.

The digest is the sha256 over the canonical config and the bytes of the weights; the same files under another name
have the same digest. Also reads a safetensors header within limits. Judges no adapter (checkpoint.py does).
Format: https://huggingface.co/docs/safetensors (8 bytes of little-endian length, JSON, data).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from lorapool.shared.errors import AdapterUnavailable, CheckpointError

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
MAX_CONFIG_BYTES = 1 << 20
MAX_HEADER_BYTES = 32 << 20
MAX_WEIGHTS_BYTES = 16 << 30
_CHUNK_BYTES = 1 << 20


def adapter_digest(folder: Path | str) -> str:
    """64 hex digits. Raises CheckpointError for a missing file, AdapterUnavailable for one that cannot be read."""
    digest = sha256(_canonical(read_config(folder)))
    path = _existing(folder, WEIGHTS_NAME)
    with _reading(path), path.open("rb") as weights:
        while chunk := weights.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def digest_of(config: dict[str, Any], weights: bytes | Iterable[bytes]) -> str:
    """The same digest of a parsed config, and of weights that are in memory already or come in pieces."""
    digest = sha256(_canonical(config))
    for chunk in (weights,) if isinstance(weights, bytes) else weights:
        digest.update(chunk)
    return digest.hexdigest()


def read_weights(folder: Path | str, limit_bytes: int = MAX_WEIGHTS_BYTES) -> bytes:
    """The bytes of the weights. Raises CheckpointError where there is only a pickle, or more than anyone reads, and
    AdapterUnavailable for more than ``limit_bytes``, the reader's own limit, or what cannot be read."""
    path = _existing(folder, WEIGHTS_NAME)
    check_size(str(path), _size(path), limit_bytes)
    return _read_bytes(path)


def check_size(what: str, size_bytes: int, limit_bytes: int) -> None:
    """Of weights. Raises CheckpointError or AdapterUnavailable, as ``read_weights`` does."""
    if size_bytes > MAX_WEIGHTS_BYTES:
        raise CheckpointError(f"{what}: {size_bytes:,} bytes, the limit is {MAX_WEIGHTS_BYTES:,}")
    if size_bytes > limit_bytes:
        raise AdapterUnavailable(
            f"{what}: {size_bytes:,} bytes, the limit is {limit_bytes:,} on this worker, by its --max-rank"
        )


def read_config(folder: Path | str) -> dict[str, Any]:
    """The parsed adapter_config.json."""
    path = _existing(folder, CONFIG_NAME)
    if (size := _size(path)) > MAX_CONFIG_BYTES:
        raise CheckpointError(f"{path}: {size:,} bytes, the limit is {MAX_CONFIG_BYTES:,}")
    return json_object(path, _read_bytes(path))


def read_header(folder: Path | str) -> dict[str, Any]:
    """The safetensors header: tensor name → {dtype, shape, data_offsets}, and ``__metadata__`` if there is one."""
    path = _existing(folder, WEIGHTS_NAME)
    size = _size(path)
    with _reading(path), path.open("rb") as weights:
        length = int.from_bytes(weights.read(8), "little")
        if size < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise CheckpointError(f"{path}: not a safetensors file (header of {length:,} bytes in {size:,})")
        header = json_object(path, weights.read(length))
    _check_offsets(path, header, size - 8 - length)
    return header


def _check_offsets(path: Path, header: dict[str, Any], data_bytes: int) -> None:
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
            raise CheckpointError(f"{path}: tensor {name!r} has no dtype, shape and data_offsets")
        offsets = entry["data_offsets"]
        whole = isinstance(offsets, list) and len(offsets) == 2 and all(type(value) is int for value in offsets)
        if not whole or not 0 <= offsets[0] <= offsets[1] <= data_bytes:
            raise CheckpointError(
                f"{path}: tensor {name!r} lies at {offsets}, outside the {data_bytes:,} bytes of data"
            )


def _existing(folder: Path | str, name: str) -> Path:
    path = Path(folder) / name
    with _reading(path):
        if path.is_file():
            return path
    if name == WEIGHTS_NAME and path.with_name("adapter_model.bin").exists():
        raise CheckpointError(
            f"{folder}: has adapter_model.bin, a pickle, which is never loaded; save it as safetensors"
        )
    raise CheckpointError(f"{folder}: has no {name}")


def _size(path: Path) -> int:
    with _reading(path):
        return path.stat().st_size


def _read_bytes(path: Path) -> bytes:
    with _reading(path):
        return path.read_bytes()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AdapterUnavailable(f"{path}: cannot be read here ({error.strerror})") from None


def json_object(path: Path | str, text: bytes) -> dict[str, Any]:
    """The JSON object in ``text``, which is the content of ``path``. Raises CheckpointError."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _canonical(config: dict[str, Any]) -> bytes:
    return json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
