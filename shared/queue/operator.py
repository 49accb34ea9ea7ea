"""OperatorQueue: what operators, and the catalog for them, do to one partition: adapters open and closed, limits, what
waits, dead letters, purging, check and repair.

Each method is one bounded script or a plain read, safe to repeat. What takes many calls hands out a cursor to go on
with. All methods raise RedisUnreachable, RedisAuthFailed or RedisFull besides what they name.
"""

from __future__ import annotations

import math
from typing import Literal

from lorapool.shared.connection import Partition
from lorapool.shared.errors import InvalidRequest, ResultExpired, UnknownAdapter, UnknownJob
from lorapool.shared.job import JobState
from lorapool.shared.malformed import readable, text_map, whole_numbers
from lorapool.shared.queue import replies
from lorapool.shared.queue.fsck import checked
from lorapool.shared.queue.protocol import Backlog, Checked, DeadPage, Enqueued, Limits, Purged, Retired
from lorapool.shared.scripts import answers, records
from lorapool.shared.server.keys import LANES, bare_id, new_job_id
from lorapool.shared.server.server import Arg

POOL = "*"  # the ref that stands for all adapters together, in limits
MAX_PAGE = 500
_WHOLE = frozenset({"max_depth", "max_inflight", "agent_window"})


class OperatorQueue:
    """The queue of one partition, from an operator's side."""

    def __init__(self, partition: Partition) -> None:
        self.keys, self._server, self._scripts = partition.keys, partition.server, partition.scripts

    # -- adapters

    async def open_adapter(self, ref: str, digest: str, **limits: float) -> None:
        """Let an adapter take jobs. ``limits``: max_depth, max_inflight, agent_window, weight."""
        unknown = limits.keys() - set(answers.Limits._fields)
        assert not unknown, f"unknown limits {unknown}"
        await self._scripts.run(
            "open", *records.Open(ref=ref, digest=digest), *(arg for pair in limits.items() for arg in pair)
        )

    async def pause(self, ref: str) -> None:
        """Claim no more jobs of that adapter; it still takes them. Raises UnknownAdapter."""
        await self._set_state(ref, "paused")

    async def resume(self, ref: str) -> None:
        """Take and claim its jobs again, after ``pause`` or ``close_adapter``. Raises UnknownAdapter."""
        await self._set_state(ref, "open")

    async def close_adapter(self, ref: str) -> None:
        """Take no new jobs for that adapter; those waiting are still served. Raises UnknownAdapter."""
        await self._set_state(ref, "closed")

    async def adapter(self, ref: str) -> dict[str, str]:
        """The queue's own record of an adapter: state, digest, limits, last claim. Empty when it was never opened."""
        return text_map(await self._server.command("HGETALL", self.keys.adapter(ref)))

    async def limits(self, ref: str = POOL, **changes: float | None) -> Limits:
        """The limits of an adapter, or of all together, after ``changes`` (None: the default again).

        Names: max_depth, max_inflight, agent_window, weight; for the pool max_depth alone. Raises InvalidRequest,
        UnknownAdapter.
        """
        args = [arg for name, value in changes.items() for arg in (name, _limit(ref, name, value))]
        answer = await self._scripts.run("limits", *records.ChangeLimits(ref=ref), *args)
        if answer is None:
            raise UnknownAdapter(f"adapter {ref} was never opened in this pool")
        return replies.limits(answer)

    async def retire(self, ref: str, wish: Literal["look", "close"] = "look") -> Retired:
        """What an adapter still has to do; ``close``: it takes no new jobs, and is removed once none is left.

        An adapter never opened has the state "".
        """
        state, waiting, running = await self._scripts.run("retire", *records.Retire(ref=ref, wish=wish))
        return Retired(state.decode(errors="replace"), waiting, running)

    # -- what waits

    async def depths(self) -> dict[str, int]:
        """Waiting jobs by adapter ref, all priorities; adapters without any are left out."""
        waiting = await self._server.command("HGETALL", self.keys.one("waiting"))
        return {ref: depth for ref, depth in whole_numbers(waiting).items() if ref != "*"}

    async def backlog(self) -> Backlog:
        """What waits and what runs now, and the longest wait."""
        waiting, running, now = await self._server.pipeline(
            [("HGETALL", self.keys.one("waiting")), ("HGETALL", self.keys.one("running")), ("TIME",)]
        )
        depths = {ref: depth for ref, depth in whole_numbers(waiting).items() if ref != "*"}
        streams = [self.keys.stream(ref, lane) for ref in depths for lane in LANES]
        heads = await self._server.pipeline([("XRANGE", stream, "-", "+", "COUNT", 1) for stream in streams])
        since = readable("head of a stream", filter(None, heads), lambda head: int(head[0][0].partition(b"-")[0]))
        now_ms = int(now[0]) * 1000 + int(now[1]) // 1000
        return Backlog(depths, whole_numbers(running), max(0, now_ms - min(since)) if since else None)

    # -- dead letters and damage

    async def dead(self, ref: str | None = None, cursor: str = "", n: int = 50) -> DeadPage:
        """Up to ``n`` (at most 500) dead letters, newest first, of one adapter or of all."""
        page = records.Dead(ref=ref or "", after=cursor, wanted=max(1, min(n, MAX_PAGE)))
        answer = await self._scripts.run("dead", *page)
        return replies.dead_page(answer, self.keys)

    async def redrive(self, job_id: str) -> Enqueued:
        """Submit a dead letter's request again as a new job, once: a repeat returns the same new job.

        The new job names the dead one in ``redrive_of``; a deadline counts anew. Raises UnknownJob, InvalidRequest
        (not a dead letter), ResultExpired (its request is gone), and what ``enqueue`` raises of the adapter.
        """
        answer = await self._scripts.run("redrive", *records.Redrive(id=bare_id(job_id), new_id=new_job_id()))
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
        args = records.PurgeDead(ref=ref or "", min_age_ms=older_than_ms, after=cursor)
        onward, count = await self._scripts.run("purge_dead", *args)
        return Purged(count, onward.decode(errors="replace"))

    async def purge_waiting(self, ref: str, cursor: str = "") -> Purged:
        """Cancel what waits for an adapter: queued, suspect and delayed jobs; about a hundred a call."""
        onward, count = await self._scripts.run("purge_waiting", *records.PurgeWaiting(ref=ref, cursor=cursor))
        return Purged(count, onward.decode(errors="replace"))

    async def fsck(self, cursor: str = "") -> Checked:
        """One step of a check of the whole partition: finds and repairs damage; begin with "", go on by the cursor.

        Harmless while clients and workers are at it: each step looks at one instant.
        """
        return checked(await self._scripts.run("fsck", cursor))

    async def forget_worker(self, worker: str) -> int | None:
        """Drop the keys that a dead worker left; returns how many, or None while leases of its are still to reap."""
        dropped = int(await self._scripts.run("forget_worker", worker))
        return None if dropped < 0 else dropped

    async def _set_state(self, ref: str, state: str) -> None:
        if await self._scripts.run("set_adapter_state", *records.SetAdapterState(ref=ref, state=state)) is None:
            raise UnknownAdapter(f"adapter {ref} was never opened in this pool")


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
