"""FileBook: the stored files of one pool, as plain hashes; whose each is, and when it is removed.

Knows nothing of their content: who writes it says when it is there. All methods raise RedisUnreachable, RedisAuthFailed
or RedisFull besides what they name.
"""

from __future__ import annotations

from typing import Any

from lorapool.shared.batches.file_record import FileRecord, FileStatus
from lorapool.shared.batches.listing import page
from lorapool.shared.connection import PoolConnection
from lorapool.shared.errors import FileInUse, InvalidRequest, QueueFull, UnknownFile
from lorapool.shared.job import check_name
from lorapool.shared.malformed import required, text_map
from lorapool.shared.scripts import batches as records

MAX_FILES, MAX_BYTES = 10_000, 20 << 30  # of one agent
UPLOAD_S = 3_600  # within which the content must be there
KEPT_S = 30 * 86_400  # longest, and unless something else is said
Page = tuple[list[FileRecord], bool]


class FileBook:
    """The book of one pool."""

    def __init__(self, connection: PoolConnection) -> None:
        self._server, self._keys, self._scripts = connection.server, connection.keys, connection.scripts

    async def begin(self, record: FileRecord) -> None:
        """Its content is about to come. Raises QueueFull where its agent has too many files."""
        head = records.FileBegin(
            id=record.id, agent=record.agent, ttl_ms=UPLOAD_S * 1000, most=MAX_FILES, most_bytes=MAX_BYTES
        )
        fields = ("filename", record.filename, "name", record.name)
        if not await self._scripts.run("file_begin", *head, *fields):
            raise QueueFull(
                f"agent {record.agent} has {MAX_FILES:,} files, or {MAX_BYTES:,} bytes of them, the limit: delete some",
                scope="agent",
                depth=MAX_FILES,
                limit=MAX_FILES,
                retry_after_s=60.0,
            )

    async def end(self, file_id: str, *, purpose: str, size: int, sha256: str, kept_s: int = KEPT_S) -> FileRecord:
        """Its content is there. Raises UnknownFile where that took so long that it is forgotten."""
        fields = records.FileEnd(id=file_id, ttl_ms=kept_s * 1000, purpose=purpose, bytes=size, sha256=sha256)
        if not await self._scripts.run("file_end", *fields):
            raise _unknown(file_id)
        return await self.get(file_id)

    async def get(self, file_id: str) -> FileRecord:
        """A file whose content is there. Raises UnknownFile."""
        record = await self.look(file_id)
        if record is None or record.status is not FileStatus.PROCESSED:
            raise _unknown(file_id)
        return record

    async def look(self, file_id: str) -> FileRecord | None:
        """The record, whatever its status; None where there is none."""
        try:
            stored = await self._server.command("HGETALL", self._keys.file(check_name("file", file_id)))
        except InvalidRequest:
            return None
        return required(f"file {file_id}", lambda: _record(stored)) if stored else None

    async def page(
        self,
        agent: str | None = None,
        *,
        purpose: str | None = None,
        after: str | None = None,
        limit: int = 100,
        ascending: bool = False,
    ) -> Page:
        """Files of an agent (None: of all) behind the one called ``after``, newest first; and whether more are."""

        def wanted(stored: Any) -> FileRecord | None:
            record = _record(stored)
            there = record.status is FileStatus.PROCESSED and purpose in {None, record.purpose}
            return record if there else None

        index = self._keys.files if agent is None else self._keys.files_of(check_name("agent", agent))
        return await page(self._server, index, self._keys.file, wanted, after=after, limit=limit, ascending=ascending)

    async def begin_removal(self, file_id: str) -> None:
        """Nobody finds it any more; its content is about to be removed. Raises FileInUse."""
        if not await self._scripts.run("file_remove", *records.FileRemove(id=file_id, step="begin")):
            raise FileInUse(f"file {file_id} is read by a batch that has not ended; cancel the batch first")

    async def end_removal(self, file_id: str) -> None:
        """Forget it: its content is gone."""
        await self._scripts.run("file_remove", *records.FileRemove(id=file_id, step="end"))

    async def due(self, most: int) -> list[str]:
        """Ids of files whose time is over."""
        return [name.decode(errors="replace") for name in await self._scripts.run("file_due", most)]


def _record(stored: Any) -> FileRecord:
    return FileRecord.model_validate(text_map(stored))


def _unknown(file_id: str) -> UnknownFile:
    return UnknownFile(f"no file {file_id!r:.150}: never stored here, deleted, or its time is over")
