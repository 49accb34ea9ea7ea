"""Responses: a pool's response records, one plain key each beside the job's, with a time to live.

A record is written before its job is queued, once, and never changed. Knows how they are stored and nothing of what
they say. All methods raise RedisUnreachable, RedisAuthFailed or RedisFull besides what they name.
"""

from __future__ import annotations

from lorapool.shared.connection import Partition
from lorapool.shared.errors import MalformedEntry
from lorapool.shared.responses.response_record import ResponseRecord
from lorapool.shared.server.terms import Terms

# A job waits so long at most (its deadline), and what came of it is kept so long again.
RESPONSE_WAITS_S = Terms().result_ttl_ms / 1000
TTL_MS = 2 * Terms().result_ttl_ms


class Responses:
    """Those of one partition."""

    def __init__(self, partition: Partition) -> None:
        self._server, self._keys = partition.server, partition.keys

    async def keep(self, record: ResponseRecord) -> tuple[ResponseRecord, bool]:
        """Store it, unless one of its id is there: the one that is there now, and whether it is new.

        Raises PayloadTooLarge, MalformedEntry.
        """
        key, encoded = self._keys.response(record.id), record.encode()
        stored = await self._server.pipeline([("SET", key, encoded, "NX", "PX", TTL_MS), ("GET", key)])
        if isinstance(stored[1], MalformedEntry):
            raise stored[1]
        there = ResponseRecord.decode(stored[1]) if stored[1] is not None else record
        return there, stored[1] in (encoded, None)

    async def get(self, job_id: str) -> ResponseRecord | None:
        """Of that job, if it is a stored response. Raises MalformedEntry."""
        encoded = await self._server.command("GET", self._keys.response(job_id))
        return None if encoded is None else ResponseRecord.decode(encoded)

    async def forget(self, job_id: str) -> bool:
        """Whether there was one; the job stays as it is."""
        return bool(await self._server.command("UNLINK", self._keys.response(job_id)))
