"""Chores: what a pool wants done now and then, in bounded pieces: due jobs, fsck, dead letters, dead workers.

Each returns what it did, as flat facts. Any may be cut off or done twice without harm. Knows no ticks: when a chore is
due, and that it is done once, is ChoreScheduler's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from lorapool.shared.errors import MalformedEntry
from lorapool.shared.fleet.membership import Membership
from lorapool.shared.malformed import number, step_over
from lorapool.shared.queue.operator import MAX_PAGE, OperatorQueue
from lorapool.shared.queue.protocol import Checked, DeadLetter
from lorapool.shared.timetable.chores import ChoreBook
from lorapool.worker.maintenance.due_runs import DueRuns

FSCK_STEPS = 200  # of one tick: about 20,000 keys
PAUSE_S = 0.002  # between steps, for the others on the server
DIGEST_PAGES = 20  # the newest 10,000 dead letters

Facts = Mapping[str, int | str]
log = structlog.get_logger()


class Chores:
    """``queues``: that of each partition, in order."""

    def __init__(
        self,
        members: Membership,
        book: ChoreBook,
        queues: Sequence[OperatorQueue],
        due_runs: DueRuns,
    ) -> None:
        self._members, self._book, self._queues, self._due_runs = members, book, queues, due_runs

    def by_name(self) -> dict[str, Callable[[], Awaitable[Facts]]]:
        """All of them, by the names that the book and the flags know them by."""
        return {
            "schedule": self.schedule,
            "fsck": self.fsck,
            "dead_letters": self.dead_letters,
            "dead_workers": self.dead_workers,
        }

    async def schedule(self) -> Facts:
        """Enqueue the jobs of the timetable that are due."""
        return vars(await self._due_runs.make())

    async def fsck(self) -> Facts:
        """Some steps of the endless round through every partition; the cursor lies in the book."""
        at, _, cursor = (await self._book.recall("fsck.cursor")).partition(" ")
        partition, damaged, rounds, steps = int(number(at)) % len(self._queues), 0, 0, 0
        while steps < FSCK_STEPS and not rounds:
            step = await self._look(partition, cursor)
            steps, damaged, cursor = steps + 1, damaged + len(step.findings), step.cursor
            for finding in step.findings:
                log.warning("fsck", damage=finding.damage, of=finding.subject, repair=finding.repair)
            if not cursor:
                partition = (partition + 1) % len(self._queues)
                rounds = int(partition == 0)
            await asyncio.sleep(PAUSE_S)
        return {"steps": steps, "found": damaged, "rounds": rounds, "cursor": f"{partition} {cursor}".strip()}

    async def _look(self, partition: int, cursor: str) -> Checked:
        """One step. A place in the book that is none ends the partition's turn; the next round begins it anew."""
        try:
            return await self._queues[partition].fsck(cursor)
        except MalformedEntry as error:
            step_over("place in a check", f"{partition} {cursor}", error)
            return Checked((), "")

    async def dead_letters(self) -> Facts:
        """Count them by reason and adapter, newest 10,000 of a partition at most, for the log and for redis-cli."""
        letters: list[DeadLetter] = []
        more = 0
        for queue in self._queues:
            newest, cursor = await _letters(queue)
            letters, more = letters + newest, more + bool(cursor)
        totals: dict[str, int | str] = {"total": len(letters), "more": more}
        if letters:
            by_reason = dict(Counter(letter.reason for letter in letters).most_common())
            by_adapter = dict(Counter(letter.ref for letter in letters).most_common())
            totals["newest_ms"] = max(letter.died_ms for letter in letters)
            log.warning("dead letters", **totals, by_reason=by_reason, by_adapter=by_adapter)
            named = {"reason": by_reason, "adapter": by_adapter}
            await self._book.write_dead(
                totals | {f"{kind}:{name}": n for kind, counts in named.items() for name, n in counts.items()}
            )
        else:
            await self._book.write_dead(totals)
        return totals

    async def dead_workers(self) -> Facts:
        """Drop what workers that are gone have left: their place among the workers, their keys."""
        beats = await self._members.all()  # forgets those that beat no more
        gone = await self._book.see([beat["worker"] for beat in beats])
        forgotten, keys = 0, 0
        for worker in gone:
            dropped = [await queue.forget_worker(worker) for queue in self._queues]
            if None not in dropped:
                await self._book.forget(worker)
                forgotten, keys = forgotten + 1, keys + sum(n or 0 for n in dropped)
        return {"alive": len(beats), "forgotten": forgotten, "keys": keys}


async def _letters(queue: OperatorQueue) -> tuple[list[DeadLetter], str]:
    letters: list[DeadLetter] = []
    cursor = ""
    for _ in range(DIGEST_PAGES):
        page = await queue.dead(None, cursor, MAX_PAGE)
        letters, cursor = letters + list(page.letters), page.cursor
        if not cursor:
            break
    return letters, cursor
