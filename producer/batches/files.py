"""Files: what agents give to a pool and get from it: a record in Redis, the content in a store.

The record comes first and says when the content is there; so an upload that was cut off is found and cleared away when
its time is over. Who may see a file is the caller's matter.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress

from lorapool.producer.batches.content import Writing
from lorapool.producer.batches.store import FileStore, opened
from lorapool.shared.batches.file_book import KEPT_S, FileBook
from lorapool.shared.batches.file_record import FileRecord
from lorapool.shared.errors import FileInUse, InvalidRequest, PayloadTooLarge
from lorapool.shared.plain_text import plain_text

PURPOSES = ("batch", "assistants", "fine-tune", "vision", "user_data", "evals")
MAX_FILE_BYTES = 200 << 20
SWEPT = 20  # files of one sweep
_SHOWN = 255  # characters of a file's name


class Files:
    """Those of one pool."""

    def __init__(self, book: FileBook, store: FileStore) -> None:
        self.book, self.store = book, store

    async def put(
        self,
        agent: str,
        filename: str,
        pieces: AsyncIterator[bytes],
        *,
        purpose: str = "batch",
        kept_s: int = KEPT_S,
        max_bytes: int = MAX_FILE_BYTES,
    ) -> FileRecord:
        """Store a content as it comes. Raises InvalidRequest, QueueFull, FilesUnavailable, and what ``pieces`` raises;
        nothing is left then."""
        upload = await self.begin(agent, filename)
        try:
            async for piece in pieces:
                await upload.write(piece, max_bytes)
            return await upload.end(kept_s, purpose=purpose)
        except BaseException:
            await upload.abort()
            raise

    async def begin(self, agent: str, filename: str) -> Upload:
        """Raises QueueFull, FilesUnavailable."""
        file_id = f"file-{secrets.token_hex(12)}"
        shown = plain_text(filename.replace("\\", "/").rpartition("/")[2])[:_SHOWN] or "unnamed"
        record = FileRecord(id=file_id, agent=agent, filename=shown, name=f"files/{file_id}")
        await self.book.begin(record)
        return Upload(self, record, await asyncio.to_thread(self.store.writing, record.name))

    async def content(self, record: FileRecord) -> AsyncGenerator[bytes, None]:
        """In pieces."""
        async with opened(self.store, record.name) as reading:
            while piece := await asyncio.to_thread(reading.read):
                yield piece

    async def remove(self, record: FileRecord) -> None:
        """Record and content. Raises FileInUse."""
        await self.book.begin_removal(record.id)
        await asyncio.to_thread(self.store.remove, record.name)
        await self.book.end_removal(record.id)

    async def sweep(self) -> None:
        """Remove what is overdue, and what removals left that were cut off."""
        for file_id in await self.book.due(SWEPT):
            record = await self.book.look(file_id)
            if record is None:
                await self.book.end_removal(file_id)
                continue
            with suppress(FileInUse):  # until its batch has ended
                await self.remove(record)


class Upload:
    """One file on its way in. Pieces are written as they come; ``end`` or ``abort`` must follow."""

    def __init__(self, files: Files, record: FileRecord, writing: Writing) -> None:
        self._files, self._record, self._writing = files, record, writing

    async def write(self, piece: bytes, max_bytes: int = MAX_FILE_BYTES) -> None:
        """Raises PayloadTooLarge once the whole has more than that."""
        if self._writing.size + len(piece) > max_bytes:
            raise PayloadTooLarge(f"{self._record.filename}: more than {max_bytes:,} bytes, the limit of a file")
        await asyncio.to_thread(self._writing.write, piece)

    async def end(self, kept_s: int = KEPT_S, *, purpose: str = "batch") -> FileRecord:
        """The content is whole. Raises InvalidRequest."""
        if purpose not in PURPOSES:
            raise InvalidRequest(f"purpose = {purpose!r:.60}: expected one of {', '.join(PURPOSES)}")
        writing = self._writing
        await asyncio.to_thread(writing.close)
        return await self._files.book.end(
            self._record.id, purpose=purpose, size=writing.size, sha256=writing.sha256, kept_s=kept_s
        )

    async def abort(self) -> None:
        """Leave nothing."""
        await asyncio.to_thread(self._writing.abort)
        await self._files.book.end_removal(self._record.id)
