"""BatchBook: the batches of one pool: made, held by one feeder at a time, noted part by part, ended.

A holder has a lease, and a token that only this lease knows: every change compares it, so that one who has lost the
lease (frozen, cut off) writes nothing. Time is the server's. Knows neither files' content nor jobs. All methods raise
RedisUnreachable, RedisAuthFailed or RedisFull besides what they name, and may be repeated.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lorapool.shared.batches.batch_record import BatchRecord, BatchStatus
from lorapool.shared.batches.listing import page
from lorapool.shared.connection import PoolConnection
from lorapool.shared.errors import InvalidRequest, QueueFull, UnknownBatch, UnknownFile
from lorapool.shared.job import check_name
from lorapool.shared.malformed import required, text_map
from lorapool.shared.scripts import batches as records

MAX_OPEN = 50  # batches of one agent
PER_AGENT = 4  # held at a time, so that one agent's flood leaves feeders for others
BEAT_MS = 15_000
_JSON = frozenset({"metadata", "errors", "adapters"})
Page = tuple[list[BatchRecord], bool]


@dataclass(frozen=True, slots=True)
class Lease:
    """Of one batch, until another takes it."""

    batch_id: str
    token: str


@dataclass(frozen=True, slots=True)
class Part:
    """Lines that were answered, by number from 0; ``name`` says where their answers stand."""

    name: str
    lines: Sequence[int]
    completed: int
    failed: int
    prompt_tokens: int = 0
    completion_tokens: int = 0
    ended_early: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """A file of answers: ``role`` is the field of the batch that names it."""

    role: str
    id: str
    name: str
    filename: str
    bytes: int
    sha256: str


class BatchBook:
    """The book of one pool."""

    def __init__(self, connection: PoolConnection) -> None:
        self._server, self._keys, self._scripts = connection.server, connection.keys, connection.scripts

    # -- who makes batches

    async def add(self, batch: BatchRecord) -> BatchRecord:
        """Make it; the same id again is the same batch. Raises UnknownFile, InvalidRequest, QueueFull."""
        head = records.BatchAdd(
            id=batch.id,
            agent=batch.agent,
            input_file=batch.input_file,
            window_s=batch.window_s,
            most_open=MAX_OPEN,
        )
        fields: list[str | int] = ["endpoint", batch.endpoint, "operator", int(batch.operator)]
        fields += ["adapters", json.dumps(batch.adapters), "metadata", json.dumps(batch.metadata, ensure_ascii=False)]
        fields += ["key", batch.key] if batch.key is not None else []
        word = (await self._scripts.run("batch_add", *head, *fields)).decode()
        if word != "added":
            raise _refusal(word, batch)
        return await self.get(batch.id)

    async def get(self, batch_id: str) -> BatchRecord:
        """Raises UnknownBatch."""
        try:
            stored = await self._server.command("HGETALL", self._keys.batch(check_name("batch", batch_id)))
        except InvalidRequest:
            raise _unknown(batch_id) from None
        if not stored:
            raise _unknown(batch_id)
        return required(f"batch {batch_id}", lambda: _record(stored))

    async def page(self, agent: str | None = None, *, after: str | None = None, limit: int = 20) -> Page:
        """Batches of an agent (None: of all) behind the one called ``after``, newest first; and whether there are
        more."""
        index = self._keys.batches if agent is None else self._keys.batches_of(check_name("agent", agent))
        return await page(self._server, index, self._keys.batch, _record, after=after, limit=limit)

    async def cancel(self, batch_id: str) -> BatchStatus:
        """Ask for its end; the status then, which is ``cancelling`` unless it was too late. Raises UnknownBatch."""
        status = await self._scripts.run("batch_cancel", check_name("batch", batch_id))
        if status is None:
            raise _unknown(batch_id)
        return required(f"batch {batch_id}", lambda: BatchStatus(status.decode()))

    async def feeders(self) -> int:
        """How many gateways feed batches now."""
        now_ms = await self._server.now_ms()
        return int(await self._server.command("ZCOUNT", self._keys.feeders, now_ms, "+inf"))

    # -- who feeds them

    async def take(self, holder: str, lease_ms: int, *, idle: bool = True) -> Lease | None:
        """A batch to feed, if there is one that nobody feeds; also a sign of life, which is all if not ``idle``."""
        token = secrets.token_hex(8) if idle else ""
        fields = records.BatchTake(
            holder=check_name("holder", holder), token=token, lease_ms=lease_ms, beat_ms=BEAT_MS, per_agent=PER_AGENT
        )
        batch_id = await self._scripts.run("batch_take", *fields)
        return None if batch_id is None else Lease(batch_id.decode(), token)

    async def renew(self, lease: Lease, lease_ms: int) -> tuple[BatchStatus, int] | None:
        """The batch's status and the server's clock; None where the lease is lost."""
        fields = records.BatchRenew(id=lease.batch_id, token=lease.token, lease_ms=lease_ms)
        answer = await self._scripts.run("batch_renew", *fields)
        if answer is None:
            return None
        status, now_ms = answer
        return required(f"batch {lease.batch_id}", lambda: (BatchStatus(status.decode()), int(now_ms)))

    async def release(self, lease: Lease, *, pause_ms: int = 0, trouble: str = "") -> None:
        """Give it back; nobody takes it within ``pause_ms``."""
        fields = records.BatchRelease(id=lease.batch_id, token=lease.token, pause_ms=pause_ms, trouble=trouble[:500])
        await self._scripts.run("batch_release", *fields)

    async def move(self, lease: Lease, status: BatchStatus, *, total: int = 0) -> BatchStatus | None:
        """One step further; the status then, None where the lease is lost."""
        fields = records.BatchMove(id=lease.batch_id, token=lease.token, status=status, total=total)
        word = await self._scripts.run("batch_move", *fields)
        return None if word is None else BatchStatus(word.decode())

    async def parts(self, batch_id: str) -> list[str]:
        """The names of the parts noted so far, in order."""
        names = await self._server.command("LRANGE", self._keys.batch_parts(batch_id), 0, -1)
        return [name.decode() for name in names]

    async def answered(self, batch_id: str) -> bytes:
        """A bit for each line, the first line's the highest of the first byte: whether a part has its answer."""
        return bytes(await self._server.command("GET", self._keys.batch_answered(batch_id)) or b"")

    async def commit(self, lease: Lease, number: int, part: Part) -> bool:
        """Note part ``number`` (from 0); False where the lease is lost, or the batch is elsewhere."""
        head = records.BatchCommit(
            id=lease.batch_id,
            token=lease.token,
            part=number,
            name=part.name,
            completed=part.completed,
            failed=part.failed,
            prompt_tokens=part.prompt_tokens,
            completion_tokens=part.completion_tokens,
            ended_early=int(part.ended_early),
        )
        return bool(await self._scripts.run("batch_commit", *head, *part.lines))

    async def finish(
        self, lease: Lease, status: BatchStatus, files: Sequence[Written] = (), errors: Sequence[dict[str, Any]] = ()
    ) -> bool:
        """It ends so, and these are its files; False where the lease is lost."""
        head = records.BatchFinish(
            id=lease.batch_id, token=lease.token, status=status, errors=json.dumps(errors, ensure_ascii=False)
        )
        args: list[str | int] = []
        for file in files:
            args += records.BatchFile(
                role=file.role, id=file.id, name=file.name, filename=file.filename, bytes=file.bytes, sha256=file.sha256
            )
        return bool(await self._scripts.run("batch_finish", *head, *args))

    async def close(self, lease: Lease) -> None:
        """Nothing of it is left to clear away."""
        await self._scripts.run("batch_close", *records.BatchClose(id=lease.batch_id, token=lease.token))


def _record(stored: Any) -> BatchRecord:
    fields: dict[str, Any] = {name: value for name, value in text_map(stored).items() if value}
    for name in _JSON & fields.keys():
        fields[name] = json.loads(fields[name])
    return BatchRecord.model_validate(fields)


def _refusal(word: str, batch: BatchRecord) -> Exception:
    if word == "full":
        return QueueFull(
            f"agent {batch.agent} has {MAX_OPEN} batches that have not ended, the limit: wait for one, or cancel one",
            scope="agent",
            depth=MAX_OPEN,
            limit=MAX_OPEN,
            retry_after_s=60.0,
        )
    if word == "purpose":
        return InvalidRequest(f"file {batch.input_file} was not stored with purpose 'batch'; upload it so")
    return UnknownFile(f"no file {batch.input_file!r:.150}: never stored here, deleted, or its time is over")


def _unknown(batch_id: str) -> UnknownBatch:
    return UnknownBatch(f"no batch {batch_id!r:.150}: never made here, or forgotten since")
