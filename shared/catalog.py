"""Catalog: what a pool serves and who serves it: its config, adapter versions, aliases, live workers.

Adapter versions are immutable; a version is pending until a worker decides. One pool has one base model. Knows
nothing of jobs, except that a ready adapter is opened for them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from redis.asyncio import Redis

from lorapool.shared.broker import Broker
from lorapool.shared.errors import AdapterConflict, PoolMismatch, RedisAuthFailed, UnknownAdapter, UnsupportedVersion
from lorapool.shared.job import BASE_REF, check_name, explain_validation
from lorapool.shared.keys import Keys, PoolKeys, partition_of
from lorapool.shared.scripts import Scripts, Terms
from lorapool.shared.server import Arg, Server, text_map

LAYOUT_VERSION = 1  # of keys and hashes: workers of another one do not share a pool
RECORD_VERSION = 1  # of an adapter's record; what only adds fields keeps it


class PoolConfig(BaseModel):
    """Written once per pool. ``digest`` is that of the base model's weights; ``dtype`` the pool's policy."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    base_model: str
    revision: str = ""
    digest: str = ""
    dtype: str = ""
    partitions: Annotated[int, Field(ge=1, le=4096)] = 1
    layout: int = LAYOUT_VERSION


class AdapterRecord(BaseModel):
    """One adapter version. ``base_model`` is what its own config says; ``rank`` and ``metadata`` are for people."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    version: str
    digest: str
    uri: str
    base_model: str = ""
    status: Literal["pending", "ready", "refused"] = "pending"
    reason: str = ""
    rank: int = 0
    aliases: tuple[str, ...] = ()
    registered_ms: int = 0
    metadata: dict[str, str] = Field(default_factory=dict)

    @property
    def ref(self) -> str:
        return BASE_REF if self.id == BASE_REF else f"{self.id}@{self.version}"


log = structlog.get_logger()

Records = list[AdapterRecord]
Beats = list[dict[str, str]]
BASE_RECORD = AdapterRecord(id=BASE_REF, version="", digest="", uri="", status="ready")


class Catalog:
    """All methods raise RedisUnreachable, RedisAuthFailed or RedisFull besides what they name."""

    def __init__(self, redis: Redis, pool: str, *, terms: Terms | None = None) -> None:
        self._pool = check_name("pool", pool)
        self._redis, self._server = redis, Server(redis)
        self._keys = PoolKeys(pool)
        self._terms = terms or Terms()
        self._scripts = Scripts(self._server, self._keys.prefix, self._terms)

    # -- the pool

    async def create_or_check_config(self, config: PoolConfig) -> PoolConfig:
        """The config that holds. Raises PoolMismatch, naming both values, when ours differs."""
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
        found = await self._server.command("HGETALL", self._keys.config)
        return _config(found) if found else None

    # -- adapters

    async def register(self, record: AdapterRecord) -> AdapterRecord:
        """Add a version, pending; the same id, version and digest again is the same version.

        A version refused before becomes pending again. Raises AdapterConflict for another digest.
        """
        for kind, name in (("adapter id", record.id), ("version", record.version)):
            check_name(kind, name)
        aliases = [check_name("alias", alias).casefold() for alias in record.aliases]
        fields = _record_fields(record.model_copy(update={"aliases": tuple(aliases)}))
        head: tuple[Arg, ...] = (record.ref, record.id, record.version, record.digest, len(aliases), *aliases)
        outcome, digest = await self._scripts.run("register", *head, *_flat(fields))
        if outcome == b"conflict":
            raise AdapterConflict(
                f"{record.ref} is registered with digest {digest.decode()[:12]}…, these files have "
                f"{record.digest[:12]}…; versions are immutable: register another version"
            )
        if outcome != b"exists":
            await self._poke(record.ref)
        return await self.get(record.ref)

    async def resolve(self, name: str | None) -> AdapterRecord:
        """The version that a name means: exact ref, then alias, then id. None is the base model. Any status."""
        if name is None or name == BASE_REF:
            return BASE_RECORD
        for part in name.split("@", 1):
            check_name("adapter", part)
        fields = await self._scripts.run("resolve", name, name.casefold())
        if not fields:
            raise UnknownAdapter(
                f"no adapter, alias or version {name!r} in pool {self._pool!r}; see `lorapool adapters`"
            )
        return _record(fields)

    async def get(self, ref: str) -> AdapterRecord:
        """Raises UnknownAdapter."""
        fields = await self._server.command("HGETALL", self._keys.adapter(ref))
        if not fields:
            raise UnknownAdapter(f"no adapter version {ref!r} in pool {self._pool!r}")
        return _record(fields)

    async def list(self) -> Records:
        """Every version, oldest first."""
        return await self._records(await self._server.command("ZRANGE", self._keys.adapters, 0, -1))

    async def pending(self) -> Records:
        """Versions that wait for a worker's verdict."""
        return await self._records(sorted(await self._server.command("SMEMBERS", self._keys.pending)))

    async def decide(
        self,
        ref: str,
        status: Literal["ready", "refused"],
        reason: str = "",
        facts: Mapping[str, str | int] | None = None,
    ) -> AdapterRecord:
        """Record a worker's verdict; the first one stands. A ready adapter is opened for jobs first."""
        record = await self.get(ref)
        if status == "ready" and record.status == "pending":
            await (await self._broker_of(ref)).open_adapter(ref, record.digest)
        fields = {"status": status, "reason": reason, **{name: str(value) for name, value in (facts or {}).items()}}
        head: tuple[Arg, ...] = (ref, record.digest, record.id, record.version, len(record.aliases), *record.aliases)
        await self._scripts.run("decide", *head, *_flat(fields))
        return await self.get(ref)

    # -- names

    async def alias(self, name: str, ref: str) -> None:
        """Point an alias at a version. Raises UnknownAdapter."""
        check_name("alias", name)
        await self.get(ref)
        await self._server.command("HSET", self._keys.aliases, name.casefold(), ref)

    async def aliases(self) -> dict[str, str]:
        """Alias → ref."""
        return text_map(await self._server.command("HGETALL", self._keys.aliases))

    # -- workers

    async def beat(self, worker: str, fields: Mapping[str, str | int | float], ttl_ms: int) -> None:
        """I am alive; forget me ``ttl_ms`` after my last beat."""
        await self._scripts.run("beat", check_name("worker", worker), ttl_ms, *_flat({**fields, "ttl_ms": ttl_ms}))

    async def leave(self, worker: str) -> None:
        """This worker is gone, on purpose."""
        await self._server.command("DEL", self._keys.worker(worker))
        await self._server.command("SREM", self._keys.workers, worker)

    async def workers(self) -> Beats:
        """Live workers by name: the last beat's fields, ``worker``, and ``age_ms`` of that beat by the server's clock.

        The dead are forgotten.
        """
        names = sorted(name.decode() for name in await self._server.command("SMEMBERS", self._keys.workers))
        keys = [self._keys.worker(name) for name in names]
        found = await self._server.pipeline([command for key in keys for command in (("HGETALL", key), ("PTTL", key))])
        beats = {name: (fields, left_ms) for name, fields, left_ms in zip(names, found[::2], found[1::2], strict=True)}
        dead = [name for name, (fields, _) in beats.items() if not fields]
        if dead:
            await self._server.command("SREM", self._keys.workers, *dead)
        return [_beat(name, text_map(fields), left_ms) for name, (fields, left_ms) in beats.items() if fields]

    async def eviction_policy(self) -> str:
        """The server's ``maxmemory-policy``: anything but ``noeviction`` may lose jobs. Empty if not told."""
        try:
            memory = await self._server.command("INFO", "memory")
        except RedisAuthFailed:
            return ""
        return str(memory.get("maxmemory_policy", ""))

    # -- within

    async def _poke(self, ref: str) -> None:
        """Ask one live worker to validate now; all of them look at ``pending`` now and then anyway."""
        workers = await self.workers()
        if workers:
            await self._broker(0).send_control(workers[0]["worker"], {"op": "validate", "ref": ref})

    async def _broker_of(self, ref: str) -> Broker:
        config = await self.config()
        return self._broker(partition_of(ref, "", config.partitions if config else 1))

    def _broker(self, partition: int) -> Broker:
        return Broker(self._redis, Keys(self._pool, partition), terms=self._terms)

    async def _records(self, refs: Sequence[bytes]) -> Records:
        """Those that this release can read: one of a newer one is left to newer readers."""
        found = await self._server.pipeline([("HGETALL", self._keys.adapter(ref.decode())) for ref in refs])
        records = []
        for ref, fields in zip(refs, found, strict=True):
            try:
                records += [_record(fields)] if fields else []
            except UnsupportedVersion as error:
                log.warning("adapter left out", adapter=ref.decode(), error=str(error))
        return records


def _beat(name: str, fields: dict[str, str], left_ms: int) -> dict[str, str]:
    age_ms = max(0, int(fields.pop("ttl_ms", left_ms)) - left_ms)
    return {"worker": name, **fields, "age_ms": str(age_ms)}


def _record_fields(record: AdapterRecord) -> dict[str, str]:
    fields = {name: str(getattr(record, name)) for name in ("id", "version", "digest", "uri", "base_model", "rank")}
    return {
        **fields,
        "v": str(RECORD_VERSION),
        "aliases": " ".join(record.aliases),
        "metadata": json.dumps(record.metadata, sort_keys=True),
    }


def _record(reply: Any) -> AdapterRecord:
    """Fields that this release does not know are ignored. Raises UnsupportedVersion for what it cannot read."""
    fields: dict[str, Any] = {**text_map(reply)}
    name = f"record of adapter {fields.get('id', '?')}@{fields.get('version', '?')}"
    if (v := fields.pop("v", "1")) != str(RECORD_VERSION):
        raise UnsupportedVersion(f"{name} has schema version {v}, this release reads {RECORD_VERSION}; upgrade it")
    try:
        fields["aliases"] = tuple(fields.get("aliases", "").split())
        fields["metadata"] = json.loads(fields.get("metadata") or "{}")
        return AdapterRecord.model_validate(fields)
    except ValueError as error:  # pydantic's too
        said = explain_validation(error) if isinstance(error, ValidationError) else str(error)
        raise UnsupportedVersion(f"{name} cannot be read by this release: {said}") from None


def _config(reply: Any) -> PoolConfig:
    return PoolConfig.model_validate(text_map(reply))


def _flat(fields: Mapping[str, Arg]) -> list[Arg]:
    return [part for pair in fields.items() for part in pair]
