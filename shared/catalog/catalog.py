"""Catalog: what a pool serves: the config that its workers agree on, adapter versions, aliases.

Adapter versions are immutable; a version is pending until a worker decides. One pool has one base model. Knows nothing
of jobs, except that a ready adapter is opened for them, and nothing of workers, except that one can be asked to look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from lorapool.shared.catalog.adapter_record import BASE_RECORD, AdapterRecord, encoded
from lorapool.shared.catalog.aliases import Aliases
from lorapool.shared.catalog.layout import FIRST, Layout
from lorapool.shared.catalog.pool_config import LAYOUT_VERSION, PoolConfig
from lorapool.shared.connection import PoolConnection
from lorapool.shared.errors import (
    AdapterConflict,
    AdapterInUse,
    MalformedEntry,
    PoolMismatch,
    UnknownAdapter,
)
from lorapool.shared.fleet.requests import WorkerRequests
from lorapool.shared.job import BASE_REF, check_name
from lorapool.shared.malformed import readable, required, text_map
from lorapool.shared.plain_text import plain_text
from lorapool.shared.queue.operator import OperatorQueue
from lorapool.shared.scripts import records
from lorapool.shared.server.keys import partition_of
from lorapool.shared.server.server import PIPELINED, Arg

__all__ = ["LAYOUT_VERSION", "AdapterRecord", "Catalog", "PoolConfig", "encoded"]

REFS = 1000  # looked at in one call


class Judging(NamedTuple):
    """Where a judgement stands: ``begun``, ``busy`` (another worker is at it: ``names``), ``ended``, or ``gone`` (it is
    decided, or no longer ours). ``deaths``: how many judges vanished over this version, ``names`` being their workers.
    """

    word: str
    deaths: int
    names: str


Records = list[AdapterRecord]
Refs = list[str]


class Catalog:
    """All methods raise RedisUnreachable, RedisAuthFailed or RedisFull besides what they name."""

    def __init__(
        self, connection: PoolConnection, requests: WorkerRequests, queue: Callable[[int], OperatorQueue]
    ) -> None:
        """``queue`` gives a partition's, where a ready adapter is opened."""
        self._pool, self._server = connection.pool, connection.server
        self._keys, self._scripts = connection.keys, connection.scripts
        self._requests, self._queue = requests, queue
        self.names, self.layout = Aliases(connection), Layout(connection.server, connection.pool)

    # -- the pool

    async def create_or_check_config(self, config: PoolConfig) -> PoolConfig:
        """The config that holds. Raises PoolMismatch, naming both values, when ours differs; or the keys' layout."""
        await self.layout.check()
        fields = {name: str(value) for name, value in config.model_dump().items()}
        holds = _config(await self._scripts.run("configure", *_flat(fields)))
        for name, ours in config.model_dump().items():
            theirs = getattr(holds, name)
            if theirs != ours:
                raise PoolMismatch(
                    f"pool {self._pool!r} has {name} {theirs!r}, this worker brings {ours!r}; use another --pool, "
                    f"or a worker that agrees"
                )
        return holds

    async def config(self) -> PoolConfig | None:
        """The pool's config, or None before its first worker."""
        rows = await self._server.command("HGETALL", self._keys.config)
        return _config(rows) if rows else None

    # -- adapters

    async def register(self, record: AdapterRecord) -> AdapterRecord:
        """Add a version, pending; the same id, version and digest again is the same version.

        A version refused or removed before becomes pending again. Raises AdapterConflict for another digest or prompt
        format; a record that says nothing of the format takes the one that is there.
        """
        for kind, name in (("adapter id", record.id), ("version", record.version)):
            check_name(kind, name)
        aliases = [check_name("alias", alias).casefold() for alias in record.aliases]
        fields = record.model_copy(update={"aliases": tuple(aliases)}).stored()
        head = records.Register(
            ref=record.ref, id=record.id, version=record.version, digest=record.digest, aliases=len(aliases)
        )
        outcome, digest = await self._scripts.run("register", *head, *aliases, *_flat(fields))
        if outcome == b"conflict":
            raise AdapterConflict(
                f"{record.ref} is registered with digest {digest.decode(errors='replace')[:12]}…, these files have "
                f"{record.digest[:12]}…; versions are immutable: register another version"
            )
        if outcome != b"exists":
            await self._requests.ask_any(
                {"op": "validate", "ref": record.ref}
            )  # all look at what is pending now and then anyway
        stored = await self.get(record.ref)
        if record.prompt_format not in {None, stored.prompt_format}:
            raise AdapterConflict(
                f"{record.ref} is registered with another prompt format, which is part of a version; versions are "
                f"immutable: register another version"
            )
        return stored

    async def resolve(self, name: str | None) -> AdapterRecord:
        """The version that a name means: exact ref, then alias, then id. None is the base model. Any status."""
        if name is None or name == BASE_REF:
            return BASE_RECORD
        for part in name.split("@", 1):
            check_name("adapter", part)
        fields = await self._scripts.run("resolve", *records.Resolve(name=name, folded=name.casefold()))
        if not fields:
            raise UnknownAdapter(
                f"no adapter, alias or version {name!r} in pool {self._pool!r}; see `lorapool adapters`"
            )
        return AdapterRecord.of_reply(fields)

    async def get(self, ref: str) -> AdapterRecord:
        """Raises UnknownAdapter."""
        fields = await self._server.command("HGETALL", self._keys.adapter(ref))
        if not fields:
            raise UnknownAdapter(f"no adapter version {ref!r} in pool {self._pool!r}")
        return AdapterRecord.of_reply(fields)

    async def list(self) -> Records:
        """Every version, oldest first."""
        return await self._records(await self._server.command("ZRANGE", self._keys.adapters, 0, -1))

    async def some(self, refs: Sequence[str]) -> Records:
        """Those of these versions that are there, in this order."""
        return await self._records([ref.encode() for ref in refs])

    async def refs(self) -> Refs:
        """Every version that is not removed, oldest first, without their records: a call for 1,000."""
        refs: Refs = []
        looked = 0
        while True:
            seen, *rows = await self._scripts.run("refs", *records.Refs(seen=looked, wanted=REFS))
            refs += readable("ref of an adapter", rows, bytes.decode)
            looked += seen
            if seen < REFS:
                return refs

    async def pending(self) -> Records:
        """Versions that wait for a worker's verdict."""
        return await self._records(sorted(await self._server.command("SMEMBERS", self._keys.pending)))

    async def decide(
        self,
        ref: str,
        status: Literal["ready", "refused"],
        reason: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> AdapterRecord:
        """Record a worker's verdict; the first one stands. A ready adapter is opened for jobs first."""
        record = await self.get(ref)
        if status == "ready" and record.status == "pending":
            await (await self._queue_of(ref)).open_adapter(ref, record.digest)
        fields = encoded({"status": status, "reason": plain_text(reason), **(facts or {})})
        head = records.Decide(
            ref=ref, digest=record.digest, id=record.id, version=record.version, aliases=len(record.aliases)
        )
        await self._scripts.run("decide", *head, *record.aliases, *_flat(fields))
        decided = await self.get(ref)
        if decided.status == "removed" and status == "ready":  # while the verdict was on its way
            await (await self._queue_of(ref)).close_adapter(ref)
        return decided

    async def begin_judging(self, record: AdapterRecord, worker: str, token: str, hold_ms: int) -> Judging:
        """Mark a pending version as being judged by ``worker``, for ``hold_ms`` unless renewed; ``token`` is unique to
        this judgement. A mark that was left behind counts as a death: its judge vanished over it."""
        return await self._judge(
            *records.JudgeBegin(
                op="begin", ref=record.ref, worker=worker, token=token, digest=record.digest, holds_ms=hold_ms
            )
        )

    async def renew_judging(self, ref: str, worker: str, token: str, hold_ms: int) -> Judging:
        """Still at it."""
        return await self._judge(*records.JudgeRenew(op="renew", ref=ref, worker=worker, token=token, holds_ms=hold_ms))

    async def end_judging(
        self, ref: str, worker: str, token: str, how: Literal["died", "unreached", "left"], reason: str = ""
    ) -> Judging:
        """Without a verdict: its judge died of it, this worker cannot reach it (and says why), or was told to leave."""
        return await self._judge(
            *records.JudgeEnd(op="end", ref=ref, worker=worker, token=token, how=how, why=plain_text(reason))
        )

    async def ask_to_validate(self, ref: str, *, but: str) -> None:
        """Have another live worker look at what is pending."""
        await self._requests.ask_any({"op": "validate", "ref": ref}, but)

    async def remove(self, ref: str) -> None:
        """Take a version out of the catalog: no name leads to it any more; its ref stays taken by its content.

        Jobs it has are served to their end; who takes no new ones is the queue's word. Raises UnknownAdapter,
        AdapterInUse (aliases point at it).
        """
        word, *aliases = (part.decode(errors="replace") for part in await self._scripts.run("remove", ref))
        if word == "unknown":
            raise UnknownAdapter(f"no adapter version {ref!r} in pool {self._pool!r}")
        if word == "aliases":
            raise AdapterInUse(
                f"{ref} is what {', '.join(sorted(aliases))} means: move or delete the alias first",
                aliases=tuple(sorted(aliases)),
            )

    async def ask_to_verify(self, ref: str, token: str) -> str:
        """Have a live worker look at an adapter's files again; returns its name, or nothing if none is alive."""
        return await self._requests.ask_any({"op": "verify", "ref": ref, "token": token})

    async def verified(self, ref: str, token: str, worker: str, problem: str) -> None:
        """A worker's answer to that."""
        fields = {"verified": token, "verified_by": worker, "problem": plain_text(problem)}
        await self._server.command("HSET", self._keys.adapter(ref), *_flat(fields))

    # -- names

    async def alias(self, name: str, ref: str) -> None:
        """Point an alias at a version; see ``Aliases.move``."""
        await self.names.move(name, ref)

    async def aliases(self) -> dict[str, str]:
        """Alias → ref."""
        return await self.names.all()

    # -- within

    async def _judge(self, *args: Arg) -> Judging:
        word, deaths, names = await self._scripts.run("judge", *args)
        return Judging(word.decode(), int(deaths), names.decode())

    async def _queue_of(self, ref: str) -> OperatorQueue:
        config = await self.config()
        return self._queue(partition_of(ref, "", config.partitions if config else 1))

    async def _records(self, refs: Sequence[bytes]) -> Records:
        """Those that this release can read: one of a newer one is left to newer readers."""
        names = readable("ref of an adapter", refs, bytes.decode)
        records: Records = []
        for start in range(0, len(names), PIPELINED):
            part = names[start : start + PIPELINED]
            rows = await self._server.pipeline([("HGETALL", self._keys.adapter(ref)) for ref in part])
            stored = ((ref, fields) for ref, fields in zip(part, rows, strict=True) if fields)
            records += readable("record of an adapter", stored, _record)
        return records


def _record(rows: tuple[str, Any]) -> AdapterRecord:
    ref, fields = rows
    record = AdapterRecord.of_reply(fields)
    if record.ref != ref:
        raise MalformedEntry(f"the record of adapter {ref!r} says that it is {record.ref!r:.60}")
    return record


def _config(reply: Any) -> PoolConfig:
    return required("the pool's config", lambda: PoolConfig.model_validate({"layout": FIRST, **text_map(reply)}))


def _flat(fields: Mapping[str, Arg]) -> list[Arg]:
    return [part for pair in fields.items() for part in pair]
