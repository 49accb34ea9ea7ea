"""Upkeep: what operators do to one partition: dead letters, purging, limits, check and repair.

Each method is one script, bounded, and safe to repeat. What takes many calls hands out a cursor to go on with. Knows
the Lua texts; nothing of clients and workers, whose operations are the Broker's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from lorapool.shared.errors import InvalidRequest, ResultExpired, UnknownAdapter, UnknownJob
from lorapool.shared.job import JobState
from lorapool.shared.queue import replies
from lorapool.shared.queue.fsck import checked
from lorapool.shared.queue.protocol import Checked, DeadPage, Enqueued, Limits, Purged, Retired
from lorapool.shared.scripts import Scripts
from lorapool.shared.server.connection import Arg, Server
from lorapool.shared.server.keys import Keys, bare_id, new_job_id
from lorapool.shared.server.terms import Terms

if TYPE_CHECKING:
    from redis.asyncio import Redis

POOL = "*"  # the ref that stands for all adapters together, in limits
MAX_PAGE = 500
_WHOLE = frozenset({"max_depth", "max_inflight", "agent_window"})


class Upkeep:
    """The upkeep of one partition; ``clock`` and ``terms`` as for its Broker."""

    def __init__(self, redis: Redis, keys: Keys, clock: str | None = None, *, terms: Terms | None = None) -> None:
        self.keys = keys
        self._scripts = Scripts(Server(redis), keys.prefix, terms or Terms(), clock)

    async def dead(self, ref: str | None = None, cursor: str = "", n: int = 50) -> DeadPage:
        """Up to ``n`` (at most 500) dead letters, newest first, of one adapter or of all."""
        answer = await self._scripts.run("dead", ref or "", cursor, max(1, min(n, MAX_PAGE)))
        return replies.dead_page(answer, self.keys)

    async def redrive(self, job_id: str) -> Enqueued:
        """Submit a dead letter's request again as a new job, once: a repeat returns the same new job.

        The new job names the dead one in ``redrive_of``; a deadline counts anew. Raises UnknownJob, InvalidRequest
        (not a dead letter), ResultExpired (its request is gone), and what ``enqueue`` raises of the adapter.
        """
        answer = await self._scripts.run("redrive", bare_id(job_id), new_job_id())
        word, *facts = (part.decode(errors="replace") for part in answer)
        if word in {"new", "same"}:
            return Enqueued(self.keys.full_id(facts[0]), JobState(facts[1] or JobState.EXPIRED), created=word == "new")
        full_id = self.keys.full_id(bare_id(job_id))
        if word == "missing":
            raise UnknownJob(f"job {full_id} is not known: never accepted here, or long forgotten")
        if word == "alive":
            raise InvalidRequest(f"job {full_id} is {facts[0]} and no dead letter: only dead letters are redriven")
        if word == "gone":
            raise ResultExpired(f"the request of job {full_id} is not kept any more; submit it anew")
        raise replies.refusal(word, *facts[2:])

    async def purge_dead(self, ref: str | None = None, *, older_than_ms: int = 0, cursor: str = "") -> Purged:
        """Drop dead letters of one adapter or of all that died at least so long ago; a few hundred looked at a call.

        Their jobs stay failed, with their messages, for as long as any result.
        """
        onward, count = await self._scripts.run("purge_dead", ref or "", older_than_ms, cursor)
        return Purged(count, onward.decode(errors="replace"))

    async def purge_waiting(self, ref: str, cursor: str = "") -> Purged:
        """Cancel what waits for an adapter: queued, suspect and delayed jobs; about a hundred a call."""
        onward, count = await self._scripts.run("purge_waiting", ref, cursor)
        return Purged(count, onward.decode(errors="replace"))

    async def limits(self, ref: str = POOL, **changes: float | None) -> Limits:
        """The limits of an adapter, or of all together, after ``changes`` (None: the default again).

        Names: max_depth, max_inflight, agent_window, weight; for the pool max_depth alone. Raises InvalidRequest,
        UnknownAdapter.
        """
        args = [arg for name, value in changes.items() for arg in (name, _limit(ref, name, value))]
        answer = await self._scripts.run("limits", ref, *args)
        if answer is None:
            raise UnknownAdapter(f"adapter {ref} was never opened in this pool")
        return replies.limits(answer)

    async def retire(self, ref: str, wish: Literal["look", "close"] = "look") -> Retired:
        """What an adapter still has to do; ``close``: it takes no new jobs, and is removed once none is left.

        An adapter never opened has the state "".
        """
        state, waiting, running = await self._scripts.run("retire", ref, wish)
        return Retired(state.decode(errors="replace"), waiting, running)

    async def fsck(self, cursor: str = "") -> Checked:
        """One step of a check of the whole partition: finds and repairs damage; begin with "", go on by the cursor.

        Harmless while clients and workers are at it: each step looks at one instant.
        """
        return checked(await self._scripts.run("fsck", cursor))

    async def forget_worker(self, worker: str) -> int | None:
        """Drop the keys that a dead worker left; returns how many, or None while leases of its are still to reap."""
        dropped = int(await self._scripts.run("forget_worker", worker))
        return None if dropped < 0 else dropped


def _limit(ref: str, name: str, value: float | None) -> Arg:
    names = {"max_depth"} if ref == POOL else _WHOLE | {"weight"}
    if name not in names:
        raise InvalidRequest(f"limit {name!r} is not known here: expected {', '.join(sorted(names))}")
    if value is None:
        return ""
    whole = name in _WHOLE
    if not (math.isfinite(value) and value > 0) or (whole and value != int(value)):
        kind = "a whole number of jobs, 1 or more" if whole else "a number above 0"
        raise InvalidRequest(f"{name} = {value!r}: expected {kind}, or none for the default")
    return int(value) if whole else float(value)
