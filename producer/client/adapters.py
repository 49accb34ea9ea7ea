"""Adapters: register, list, look up and alias them; and resolve a name to an exact ref for ``submit``.

Reads what a client can read without torch: the JSON config, the safetensors header, the digest. Whether a worker can
serve the weights is the worker's word, which ``register`` waits for. Resolved names are remembered for a second.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lorapool.producer.client.folder import Facts, absolute, as_uri, describe
from lorapool.producer.client.publishing import (
    Imported,
    Verified,
    import_items,
    publish_files,
    read_manifest,
    verify_files,
)
from lorapool.producer.client.registration import described
from lorapool.producer.client.slices import Slices
from lorapool.shared.catalog.adapter_record import BASE_RECORD, AdapterRecord
from lorapool.shared.catalog.aliases import Canary, Move
from lorapool.shared.catalog.catalog import Catalog
from lorapool.shared.errors import (
    AdapterClosed,
    AdapterInUse,
    AdapterNotReady,
    AdapterRefused,
    InvalidRequest,
    NoWorker,
    UnknownAdapter,
)
from lorapool.shared.fleet.membership import Membership
from lorapool.shared.job import BASE_REF, check_name
from lorapool.shared.prompt_format import PromptFormat
from lorapool.shared.queue.explain import still_loading
from lorapool.shared.queue.operator import OperatorQueue
from lorapool.shared.queue.protocol import Retired

CACHE_S = 1.0
CACHE_NAMES = 50_000  # kept: a name has as many spellings as letters
UNREACHED_AFTER_S = 2.0  # others may be about to look
NO_WORKER_AFTER_S = 3.0  # a worker that has just started is not seen at once
DEFAULT_VERSION = "1.0.0"


class Adapters:
    """``client.adapters``: the pool's adapters by id, version and alias."""

    def __init__(self, catalog: Catalog, members: Membership, operators: OperatorQueue, pool: str) -> None:
        self._catalog, self._members, self._operators, self._pool = catalog, members, operators, pool
        self._cache: dict[str, tuple[float, AdapterRecord]] = {}

    async def register(
        self,
        adapter_id: str,
        uri: str | Path,
        *,
        version: str = DEFAULT_VERSION,
        aliases: Sequence[str] = (),
        metadata: Mapping[str, str] | None = None,
        digest: str | None = None,
        prompt_format: PromptFormat | Mapping[str, str] | str | None = None,
        parents: Sequence[str] = (),
        owner: str = "",
        wait: bool = True,
        timeout: float = 60.0,
    ) -> AdapterRecord:
        """Make ``adapter_id@version`` known to the pool and wait until a worker has validated it.

        ``uri`` is a folder (path or file://) with adapter_config.json and adapter_model.safetensors, at the same path
        for client and workers; with ``digest`` the client need not see it. Repeating the same content is harmless.
        ``prompt_format`` says how chat messages are written for it (a kind, its fields, or a PromptFormat): without it,
        by the chat_template.jinja in its folder, else by the base model's template. ``parents`` are what it was trained
        on top of, other than the base model: workers refuse to serve it alone.
        Raises CheckpointError (unfit), AdapterUnavailable (unreadable here), AdapterConflict (same version, other
        content), AdapterRefused (with the worker's reason), NoWorker (nobody alive to validate: it stays pending) and
        AdapterNotReady (no worker can reach it, and why, or after ``timeout`` seconds: it stays pending). With
        ``wait=False`` the pending record comes back at once.
        """
        record = described(
            adapter_id,
            version,
            aliases=aliases,
            metadata=metadata,
            prompt_format=prompt_format,
            parents=parents,
            owner=owner,
        )
        facts = await asyncio.to_thread(describe, as_uri(uri), digest)
        return await self._register(record, facts, wait=wait, timeout=timeout)

    async def publish(
        self,
        folder: str | Path,
        to: str | Path,
        *,
        adapter_id: str | None = None,
        version: str = DEFAULT_VERSION,
        wait: bool = True,
        timeout: float = 60.0,
        **traits: Any,
    ) -> AdapterRecord:
        """Copy a trained adapter to ``<to>/<id>/<version>``, a folder or a uri, and register it there.

        The id is the folder's name unless given; ``traits`` are aliases, metadata, prompt_format, parents and owner, as
        ``register`` takes them. What is published is never overwritten. Raises what ``register`` does.
        """
        source = absolute(folder)
        name = check_name("adapter id", source.name if adapter_id is None else adapter_id)
        place = f"{str(to).rstrip('/')}/{name}/{version}"
        record = described(name, version, **traits)
        facts = await asyncio.to_thread(publish_files, source, place)
        return await self._register(record, facts, wait=wait, timeout=timeout)

    async def import_manifest(
        self,
        path: str | Path,
        *,
        wait: bool = True,
        timeout: float = 60.0,
        on_total: Callable[[int], None] = lambda _: None,
        on_done: Callable[[Imported], None] = lambda _: None,
    ) -> Sequence[Imported]:
        """Register every adapter of a TOML or JSON manifest; same length and order, an error in its item's place.

        Safe to repeat. ``on_total`` hears how many there are, ``on_done`` of each that is through. Raises
        InvalidRequest for what is no manifest.
        """
        items = await asyncio.to_thread(read_manifest, Path(path))
        on_total(len(items))
        return await import_items(self.register, items, wait=wait, timeout=timeout, on_done=on_done)

    async def verify(self, name: str, *, worker: bool = False, timeout: float = 60.0) -> Verified:
        """Whether a version's files are still what was registered: seen from here, or by a ``worker``.

        A worker looks at its own copy, and at all that it checks before it serves one. Raises UnknownAdapter, NoWorker
        (none is alive, or none answered within ``timeout`` seconds).
        """
        record = await self._find(name)
        if not worker:
            return await asyncio.to_thread(verify_files, record)
        token = secrets.token_hex(8)
        asked = await self._catalog.ask_to_verify(record.ref, token)
        give_up_at = time.monotonic() + timeout
        while asked and time.monotonic() < give_up_at:
            record = await self._catalog.get(record.ref)
            if record.verified == token:
                return Verified(record.ref, record.verified_by, record.problem)
            await asyncio.sleep(0.05)
        reason = f"worker {asked} did not answer within {timeout:g} s" if asked else "no worker is alive"
        raise NoWorker(f"adapter {record.ref} is not verified: {reason}")

    async def list(self, *, removed: bool = False) -> list[AdapterRecord]:
        """Every registered version, sorted by ref, with the aliases that point at it now; removed ones on request."""
        records, names = await self._catalog.list(), _by_ref(await self.aliases())
        slices, kept = Slices(), []
        for record in records:
            if removed or record.status != "removed":
                kept.append(_named(record, names))
            await slices.between()
        return sorted(kept, key=lambda record: record.ref)

    async def refs(self) -> Sequence[str]:
        """Every registered version that is not removed, oldest first: a list without their records."""
        return await self._catalog.refs()

    async def some(self, refs: Sequence[str]) -> Sequence[AdapterRecord]:
        """The records of these refs, in their order, for a page of them; one that cannot be read is left out."""
        names = _by_ref(await self.aliases())
        return [_named(record, names) for record in await self._catalog.some(refs)]

    async def get(self, name: str) -> AdapterRecord:
        """The record behind a ref, alias or id, as it is now. Raises UnknownAdapter."""
        return _named(await self._find(name), _by_ref(await self.aliases()))

    async def alias(self, name: str, ref: str) -> AdapterRecord:
        """Point ``name`` at an exact ref or at an id's active version; other clients see it within a second.

        Jobs submitted before keep the version they were given. A name in use moves only to a ready version. Raises
        UnknownAdapter, AdapterNotReady, AdapterRefused, AdapterClosed.
        """
        record = await self.get(ref)
        await self._catalog.names.move(name, record.ref)
        self._cache.clear()
        return await self.get(record.ref)

    async def canary(self, name: str, ref: str, percent: int) -> None:
        """Let ``percent`` of the jobs of alias ``name`` go to ``ref``, another version of the adapter it points at,
        within a second; 0 ends it, and so does moving the alias.

        Which jobs follows from their ids. Raises InvalidRequest, UnknownAdapter, AdapterNotReady, AdapterRefused,
        AdapterClosed.
        """
        await self._catalog.names.canary(name, ref, percent)
        self._cache.clear()

    async def canaries(self) -> dict[str, Canary]:
        """Alias → the percentage of its jobs that go to another version, and which."""
        return await self._catalog.names.canaries()

    async def rollback(self, name: str) -> AdapterRecord:
        """Point alias ``name`` back at its latest earlier version that still serves; once more, further back.

        Raises InvalidRequest when none is left.
        """
        _, ref = await self._catalog.names.rollback(name)
        self._cache.clear()
        return await self.get(ref)

    async def unalias(self, name: str) -> str:
        """Let alias ``name`` mean nothing; returns the ref it had. Raises UnknownAdapter."""
        ref = await self._catalog.names.delete(name)
        self._cache.clear()
        return ref

    async def history(self, name: str) -> Sequence[Move]:
        """The latest moves of alias ``name``, latest first."""
        return await self._catalog.names.history(name)

    async def remove(self, ref: str, *, force: bool = False, timeout: float = 60.0) -> Retired:
        """Take a version out of service: it is closed, its jobs end on it, then it is removed. Repeatable.

        ``ref`` is exact. While jobs of it wait or run only with ``force``, and then waits up to ``timeout`` seconds
        for their ends; if some are left, it stays closed, and removing again goes on from there. The ref is never
        reused for other content; registering the same content again brings it back. Raises UnknownAdapter,
        AdapterInUse (aliases point at it; or jobs, without ``force``).
        """
        await self._catalog.get(_exact(ref))
        retired = await self._operators.retire(ref)
        if retired.state in {"open", "paused"} and retired.waiting + retired.running and not force:
            raise _busy(ref, retired)
        await self._catalog.remove(ref)
        self._cache.clear()
        return await self._drained(ref, timeout)

    async def aliases(self) -> dict[str, str]:
        """Alias → ref."""
        return dict(await self._catalog.aliases())

    async def resolve(self, name: str | None, job_id: str | None = None) -> str:
        """The exact ref that takes a job for ``name``, the one of that id where a canary takes a part; None is the
        base model.

        Raises UnknownAdapter with the nearest names, AdapterNotReady, AdapterRefused, PoolMismatch (another layout).
        """
        return (await self.serving(name, job_id=job_id)).ref

    async def serving(self, name: str | None, *, near: bool = True, job_id: str | None = None) -> AdapterRecord:
        """As ``resolve``: its record, at most a second old; ``near`` as well: others are looked at for like names."""
        await self._catalog.layout.check()
        if name is None or name == BASE_REF:
            return BASE_RECORD
        if not isinstance(name, str) or not name:
            raise InvalidRequest(f"adapter = {name!r}: expected a ref, an alias or an id, or None for the base model")
        record = self._remembered(name)
        if record is None:
            record = await (self._find(name) if near else self._catalog.resolve(name))
            self._remember(name, record)
        if record.canary and job_id and (canary := Canary.of(record.canary)).takes(job_id):
            return await self.serving(canary.ref, near=near)
        _usable(record)
        return record

    async def ref(self, name: str | None) -> str:
        """The exact ref behind a name, whatever its status; None is the base model. Raises UnknownAdapter."""
        return BASE_REF if name is None or name == BASE_REF else (await self._find(name)).ref

    async def _register(self, record: AdapterRecord, facts: Facts, *, wait: bool, timeout: float) -> AdapterRecord:
        from_files = {name: value for name, value in facts.from_files.items() if not getattr(record, name)}
        where = {"uri": facts.uri, "digest": facts.digest}
        stored = await self._catalog.register(record.model_copy(update={**from_files, **where}))
        self._cache.clear()
        return await self._validated(stored, timeout) if wait else stored

    async def _drained(self, ref: str, timeout_s: float) -> Retired:
        give_up_at = time.monotonic() + timeout_s
        retired = await self._operators.retire(ref, "close")
        while retired.state == "closed" and time.monotonic() < give_up_at:
            await asyncio.sleep(0.1)
            retired = await self._operators.retire(ref, "close")
        return retired

    async def _find(self, name: str) -> AdapterRecord:
        try:
            return await self._catalog.resolve(name)
        except UnknownAdapter as error:
            raise UnknownAdapter(await self._with_hint(name, str(error))) from None

    def _remembered(self, name: str) -> AdapterRecord | None:
        since, record = self._cache.get(name, (float("-inf"), None))
        if time.monotonic() - since < CACHE_S:
            return record
        self._cache.pop(name, None)
        return None

    def _remember(self, name: str, record: AdapterRecord) -> None:
        if len(self._cache) >= CACHE_NAMES:
            self._cache.clear()
        self._cache[name] = self._cache[record.ref] = (time.monotonic(), record)

    async def _validated(self, record: AdapterRecord, timeout_s: float) -> AdapterRecord:
        """Wait for a worker's word on a pending record."""
        began, pause_s = time.monotonic(), 0.02
        while record.status == "pending":
            waited = time.monotonic() - began
            await self._give_up(record, waited, timeout_s)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.25)
            record = await self._catalog.get(record.ref)
        _usable(record)
        return record

    async def _give_up(self, record: AdapterRecord, waited_s: float, timeout_s: float) -> None:
        ref = record.ref
        if record.not_here and not record.judging and waited_s >= min(UNREACHED_AFTER_S, timeout_s):
            await self._check_reach(record)
        if waited_s >= min(NO_WORKER_AFTER_S, timeout_s) and not await self._members.liveliest():
            raise NoWorker(
                f"adapter {ref} is registered but no worker of pool {self._pool!r} is alive to validate it: "
                "start one with `lorapool-worker run`; it stays pending until then"
            )
        if waited_s >= timeout_s:
            loading = still_loading(await self._members.all())
            why = f"{loading}: look later" if loading else "workers may be busy: look later"
            raise AdapterNotReady(f"adapter {ref} is not validated after {timeout_s:g} s; {why}")

    async def _check_reach(self, record: AdapterRecord) -> None:
        if all(beat["worker"] in record.not_here for beat in await self._members.all()):
            raise AdapterNotReady(f"adapter {record.ref} is registered, but {unreached(record)}; it stays pending")

    async def _with_hint(self, name: str, message: str) -> str:
        refs = await self._catalog.refs()
        names = {*refs, *(ref.partition("@")[0] for ref in refs), *await self.aliases()}
        folded = {each.casefold(): each for each in sorted(names)}
        near = [folded[each] for each in get_close_matches(name.casefold(), folded, n=3)]
        if near:
            return f"{message}; did you mean {' or '.join(near)}?"
        return message if names else f"{message}; this pool has no adapters yet: `lorapool adapters register ID FOLDER`"


def unreached(record: AdapterRecord) -> str:
    """Which workers cannot reach a pending version, and why."""
    return "cannot be reached: " + "; ".join(f"by {worker}: {why}" for worker, why in sorted(record.not_here.items()))


def _by_ref(aliases: Mapping[str, str]) -> Mapping[str, Sequence[str]]:
    """The aliases of each ref, sorted."""
    names: defaultdict[str, list[str]] = defaultdict(list)
    for alias in sorted(aliases):
        names[aliases[alias]].append(alias)
    return names


def _named(record: AdapterRecord, names: Mapping[str, Sequence[str]]) -> AdapterRecord:
    return record.model_copy(update={"aliases": tuple(names.get(record.ref, ()))})


def _usable(record: AdapterRecord) -> str:
    if record.status == "pending":
        raise AdapterNotReady(f"adapter {record.ref} is registered, but no worker has validated it yet: try again")
    if record.status == "refused":
        message = f"adapter {record.ref} was refused by a worker: {record.reason}"
        raise AdapterRefused(message, reason=record.reason or "")
    if record.status == "removed":
        raise AdapterClosed(f"adapter {record.ref} was removed and takes no new jobs; another version may serve")
    return record.ref


def _exact(ref: str) -> str:
    if ref.count("@") != 1:
        raise InvalidRequest(f"ref = {ref!r}: expected an exact version to remove, id@version")
    return ref


def _busy(ref: str, retired: Retired) -> AdapterInUse:
    return AdapterInUse(
        f"{ref} has jobs left, {retired.waiting} waiting and {retired.running} running: wait for them, cancel "
        f"what waits (`lorapool purge {ref} --waiting`), or force it: they are served, new ones are not",
        waiting=retired.waiting,
        running=retired.running,
    )
