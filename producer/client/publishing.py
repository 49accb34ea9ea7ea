"""Publishing: copies a trained adapter to where workers read, registers many by a manifest, and verifies them later.

What is published lies at ``<place>/<id>/<version>`` and is never overwritten. Knows folders and manifests; registering
is Adapters' business.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import tomllib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lorapool.producer.client.folder import Facts, as_uri, describe, expanded, local_folder
from lorapool.shared.catalog.catalog import AdapterRecord
from lorapool.shared.digest import CONFIG_NAME, WEIGHTS_NAME
from lorapool.shared.errors import (
    AdapterConflict,
    AdapterUnavailable,
    CheckpointError,
    InvalidRequest,
    LorapoolError,
)
from lorapool.shared.prompt_format import TEMPLATE_NAME
from lorapool.shared.remote import RemoteFolder, check_uri, is_remote
from lorapool.shared.wire import explain_validation

MAX_MANIFEST_BYTES = 16 << 20
AT_ONCE = 8  # registrations of an import under way

Register = Callable[..., Awaitable[AdapterRecord]]  # `Adapters.register`


class ManifestItem(BaseModel):
    """One adapter of a manifest: the arguments of ``register``. A relative uri starts at the manifest's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    uri: str
    version: str = "1.0.0"
    aliases: tuple[str, ...] = ()
    owner: str = ""
    metadata: dict[str, str] = {}
    digest: str | None = None
    prompt_format: str | dict[str, str] | None = None
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one item of a manifest; ``name`` is its ref, or its place if it has none."""

    name: str
    outcome: AdapterRecord | LorapoolError


@dataclass(frozen=True, slots=True)
class Verified:
    """Whether a version's files are what was registered. ``by``: client or a worker's name, empty if nobody saw them.

    ``problem`` says what is wrong; empty if nothing is, or nobody saw them.
    """

    ref: str
    by: str
    problem: str


def publish_files(folder: Path, place: str) -> Facts:
    """Copy an adapter to ``place``, a path or uri, and describe it there. What is there already must be the same.

    Raises CheckpointError, AdapterConflict, InvalidRequest.
    """
    facts = describe(as_uri(folder), None)
    uri = check_uri(place) if is_remote(place) else as_uri(place)
    target = local_folder(uri)
    if target is None and not is_remote(uri):
        raise InvalidRequest(f"place = {place!r}: expected a folder, or a uri of a scheme that is read")
    if _is_there(uri, target):
        there = describe(uri, None).digest
        if there != facts.digest:
            raise AdapterConflict(
                f"{uri} holds digest {there[:12]}…, these files have {facts.digest[:12]}…: publish another version"
            )
    elif target is None:
        _upload(folder, RemoteFolder(uri))
    else:
        _copy(folder, target)
    return Facts(uri, facts.digest, facts.from_files)


def read_manifest(path: Path) -> list[ManifestItem | Imported]:
    """The items of a TOML or JSON manifest; what is no item comes as its error. Raises InvalidRequest.

    TOML: ``[[adapters]]`` tables. JSON: a list, or ``{"adapters": [...]}``.
    """
    path = expanded(path)
    items = _parsed(path)
    return [_item(item, number, path.parent) for number, item in enumerate(items, 1)]


async def import_items(
    register: Register,
    items: Sequence[ManifestItem | Imported],
    *,
    wait: bool,
    timeout: float,
    on_done: Callable[[Imported], None],
) -> list[Imported]:
    """Register them, a few at a time; same length and order, an error stands in its item's place."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def imported(item: ManifestItem | Imported) -> Imported:
        if isinstance(item, ManifestItem):
            async with gate:
                item = await _register(register, item, wait=wait, timeout=timeout)
        on_done(item)
        return item

    return await asyncio.gather(*(imported(item) for item in items))


def verify_files(record: AdapterRecord) -> Verified:
    """Compute the digest anew where this process sees the files."""
    target = local_folder(record.uri)
    if not is_remote(record.uri) and (target is None or not target.exists()):
        return Verified(record.ref, "", "")
    try:
        digest = describe(record.uri, None).digest
    except (AdapterUnavailable, CheckpointError) as error:
        return Verified(record.ref, "client", str(error))
    changed = f"digest is {digest[:12]}…, registered as {record.digest[:12]}…: the files have changed"
    return Verified(record.ref, "client", "" if digest == record.digest else changed)


def _is_there(uri: str, target: Path | None) -> bool:
    return RemoteFolder(uri).has(CONFIG_NAME) if target is None else target.exists()


def _files(folder: Path) -> list[str]:
    """What belongs to an adapter, its config last: a place with a config is whole."""
    return [name for name in (WEIGHTS_NAME, TEMPLATE_NAME, CONFIG_NAME) if (folder / name).is_file()]


def _upload(folder: Path, remote: RemoteFolder) -> None:
    for name in _files(folder):
        remote.upload(folder / name, name)


def _copy(folder: Path, target: Path) -> None:
    """Under another name first, so that nobody sees half of it."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
        try:
            for name in _files(folder):
                shutil.copyfile(folder / name, partial / name)
            partial.chmod(0o755)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be written ({error.strerror})") from None


def _parsed(path: Path) -> list[Any]:
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise InvalidRequest(f"{path}: more than {MAX_MANIFEST_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8")
        parsed = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
    except OSError as error:
        raise InvalidRequest(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{path}: neither JSON nor TOML by its name ({error})") from None
    items = parsed.get("adapters") if isinstance(parsed, Mapping) else parsed
    if not isinstance(items, list):
        raise InvalidRequest(f"{path}: expected a list of adapters: [[adapters]] in TOML, a list in JSON")
    return items


def _item(fields: Any, number: int, folder: Path) -> ManifestItem | Imported:
    try:
        item = ManifestItem.model_validate(fields)
    except ValidationError as error:
        return Imported(f"item {number}", InvalidRequest(explain_validation(error)))
    try:
        uri = item.uri if "://" in item.uri else str(folder / expanded(item.uri))
    except InvalidRequest as error:
        return Imported(f"{item.id}@{item.version}", error)
    return item.model_copy(update={"uri": uri})


async def _register(register: Register, item: ManifestItem, *, wait: bool, timeout: float) -> Imported:
    arguments = item.model_dump(exclude={"id", "uri"})
    try:
        outcome: AdapterRecord | LorapoolError = await register(
            item.id, item.uri, **arguments, wait=wait, timeout=timeout
        )
    except LorapoolError as error:
        outcome = error
    return Imported(f"{item.id}@{item.version}", outcome)
