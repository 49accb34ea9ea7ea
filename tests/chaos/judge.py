"""Judge: compares the agents' ledger with what the server holds, once everything is over; a list of complaints.

Nothing it believes comes from workers, but how many refusals they saw. Bystanders and strangers have adapters of their
own, and are judged apart; what was scribbled into keys is told by its name, and is no finding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lorapool.shared.job import BASE_REF
from lorapool.shared.queue.protocol import Finding
from lorapool.shared.server.keys import Keys, PoolKeys
from lorapool.shared.server.server import Server
from tests.chaos.ledger import ENDS, NO_ANSWER, Entry, Ledger
from tests.chaos.scribbles import NAME
from tests.containment.bystanders import Sample
from tests.parts import Queue

ENDED = ("succeeded", "failed", "cancelled", "expired")
LASTING = ("adapter:", "stats:", "dead")  # design §4: what of a partition may stay for ever
LASTING_POOL = ("config", "adapter:", "adapters", "active", "aliases", "workers", "usage")
BYSTANDER_S = 120.0  # for 99 of 100 jobs, on a machine that is busy with other things; normal is a tenth of it
FOR_EVER = -1  # what PTTL says of a key that does not expire
REST_BYTES = 2 << 20  # scripts take half of it, whatever the number of jobs; dead letters, counters


@dataclass
class Verdict:
    """``numbers`` are printed, ``complaints`` must be none."""

    numbers: dict[str, Any]
    complaints: list[str]


class Judge:
    """``before_bytes``: what the server's memory held before the first job."""

    def __init__(self, server: Server, queue: Queue, upkeep: Queue, before_bytes: int) -> None:
        self._server, self._queue, self._upkeep = server, queue, upkeep
        self._keys, self._before_bytes = Keys("default"), before_bytes
        self._complaints: list[str] = []
        self._stored: list[Mapping[str, str | bytes]] = []

    async def judge(self, ledger: Ledger, clients: Iterable[str], refusals: int) -> Verdict:
        """``clients``: names of inboxes; ``refusals``: how many the workers logged."""
        counters = await self._counters({entry.adapter or BASE_REF for entry in ledger.entries})
        for entry in ledger.entries:
            self._answer(entry)
        await self._records(ledger.entries)
        await self._streams(ledger.entries)
        await self._notices(ledger.entries, clients)
        self._count(ledger.entries, counters)
        counters["stale"] = await self._stale(refusals)
        self._complain(f"fsck found {finding}" for finding in await self.fsck())
        left_bytes = await self._at_rest()
        ends = Counter(entry.end for entry in ledger.entries)
        numbers = {"ends": dict(ends), "counters": dict(counters), "refusals": refusals, "left_bytes": left_bytes}
        return Verdict(numbers, self._complaints)

    async def fsck(self) -> list[Finding]:
        """A whole check, but for what was scribbled."""
        findings: list[Finding] = []
        cursor = ""
        while True:
            step = await self._upkeep.fsck(cursor)
            findings += (finding for finding in step.findings if NAME not in finding.subject)
            cursor = step.cursor
            if not cursor:
                return findings

    # -- what agents were told

    def _answer(self, entry: Entry) -> None:
        if entry.end not in ENDS[entry.sort]:
            self._complain(
                [f"{entry.job_id} ({entry.sort}): {entry.end or 'never ended'}; record {dict(entry.record)}"]
            )
        if entry.end == "succeeded" and entry.token_ids != entry.right:
            self._complain([f"{entry.job_id}: tokens {entry.token_ids}, right are {entry.right}"])
        if entry.sort == "streamed" and entry.text != (text := "".join(f"{token} " for token in entry.right)):
            self._complain([f"{entry.job_id}: streamed {entry.text!r}, right is {text!r}"])

    async def _records(self, entries: list[Entry]) -> None:
        """The answer is there still, is the one that was given, and was written by the worker that had the job."""
        for some in _chunks(entries):
            for entry, record in zip(some, await self._queue.get_many([e.job_id for e in some]), strict=True):
                self._record(entry, record or {})

    def _record(self, entry: Entry, record: Mapping[str, str | bytes]) -> None:
        self._stored.append(record)
        if entry.end == NO_ANSWER:
            self._complain([f"{entry.job_id}: no answer came, and the server has {dict(record)}"])
        if any(record.get(name) != value for name, value in entry.record.items()):
            self._complain([f"{entry.job_id}: told {dict(entry.record)}, stored {dict(record)}"])
        worker = record.get("worker")
        if (device := record.get("device", worker)) != worker:
            self._complain([f"{entry.job_id}: {worker!r} had it, {device!r} ended it"])

    async def _streams(self, entries: list[Entry]) -> None:
        """Attempt after attempt, each without a gap from its first token; one end.

        One that was given back begins again under its number, where an entry says so.
        """
        for entry in entries:
            if entry.sort == "streamed":
                self._stream(entry, await self._queue.tokens(entry.job_id, "0-0", 0))

    def _stream(self, entry: Entry, items: list[Any]) -> None:
        attempts = [item.attempt for item in items]
        kinds = Counter(item.kind for item in items)
        if attempts != sorted(attempts) or kinds["end"] != 1 or items[-1].kind != "end":
            self._complain([f"{entry.job_id}: token stream out of order: {items}"])
        offsets: Counter[int] = Counter()
        for item in items:
            if item.kind == "restart":
                offsets[item.attempt] = 0
            elif item.kind == "delta":
                if item.offset != offsets[item.attempt]:
                    self._complain([f"{entry.job_id}: attempt {item.attempt} goes on at {item.offset}: {items}"])
                offsets[item.attempt] = item.offset + len(item.token_ids)

    async def _notices(self, entries: list[Entry], clients: Iterable[str]) -> None:
        """One for each end."""
        heard: Counter[str] = Counter()
        for client in clients:
            found = await self._server.command("XRANGE", self._keys.inbox(client), "-", "+")
            for _, fields in found:
                names = fields if isinstance(fields, dict) else fields[::2]
                heard.update(name for job_id in names if NAME not in (name := job_id.decode(errors="replace")))
        told = Counter(entry.job_id for entry in entries)
        self._complain(f"{job_id}: {heard[job_id]} notices" for job_id in told | heard if heard[job_id] != 1)

    # -- what was counted

    async def _counters(self, refs: Iterable[str]) -> Counter[str]:
        found = await self._server.pipeline([("HGETALL", self._keys.stats(ref)) for ref in sorted(refs)])
        total: Counter[str] = Counter()
        for fields in found:
            total.update({name.decode(): int(value) for name, value in fields.items()})
        return total

    def _count(self, entries: list[Entry], counters: Counter[str]) -> None:
        ends = Counter(entry.end.split(" ")[0] for entry in entries)
        for name in ENDED:
            if ends[name] != counters[name]:
                self._complain([f"{ends[name]} agents were told {name}, counted are {counters[name]}"])
        if counters["submitted"] != len(entries):
            self._complain([f"{len(entries)} were accepted, counted are {counters['submitted']}"])
        given = sum(int(record.get("fence", 0)) for record in self._stored)
        if counters["claimed"] != given:
            self._complain([f"records say {given} claims, counted are {counters['claimed']}"])
        lost = sum(int(record.get("lost", 0)) for record in self._stored)
        if counters["reaped"] != lost:
            self._complain([f"records say {lost} lost attempts, counted are {counters['reaped']}"])

    async def _stale(self, seen: int) -> int:
        """Writes refused, of anybody's jobs: workers cannot have seen more."""
        prefix = self._keys.stats("")
        names = [key.decode().removeprefix(prefix) for key in await self._server.scan(f"{prefix}*")]
        if seen > (counted := (await self._counters(names))["stale"]):
            self._complain([f"workers saw {seen} refusals, counted are {counted}"])
        return counted

    async def bystanders(self, sample: Sample, refs: Iterable[str]) -> list[str]:
        """What is wrong with how they fared: each of their jobs succeeds, rightly, once, and few wait for long."""
        wrong, jobs = sample.wrong(), len(sample.outcomes)
        counters = await self._counters(refs)
        for name in ("submitted", "succeeded"):
            if counters[name] != jobs:
                wrong.append(f"bystanders sent {jobs} jobs, counted are {counters[name]} {name}")
        if (p99_s := sample.quantile_s(0.99)) > BYSTANDER_S:
            wrong.append(f"99 of 100 bystanders' jobs took up to {p99_s:.1f} s, fair are {BYSTANDER_S:g} s")
        return wrong

    # -- what is left

    async def _at_rest(self) -> int:
        """Nothing without TTL but what is meant to stay; without the rest, memory is as before. Returns the growth."""
        passing: list[bytes] = []
        pool = PoolKeys("default")
        for key in await self._server.scan("*"):
            name = key.decode()
            partition = name.startswith(self._keys.prefix)
            lasts = name.removeprefix(self._keys.prefix if partition else pool.prefix).startswith(
                LASTING if partition else LASTING_POOL
            )
            left_ms = await self._server.command("PTTL", key)
            if left_ms >= 0:
                passing.append(key)
            elif left_ms == FOR_EVER and not lasts:  # another may have passed since the scan
                self._complain([f"{name} would stay for ever"])
        for some in _chunks(passing):
            await self._server.command("DEL", *some)
        grown = await memory_bytes(self._server) - self._before_bytes
        if grown > REST_BYTES:
            self._complain([f"{grown} bytes more than before the first job, without all that passes by itself"])
        return grown

    def _complain(self, complaints: Iterable[str]) -> None:
        self._complaints += complaints


async def memory_bytes(server: Server) -> int:
    """What the keys take, without scripts and connections."""
    await server.command("MEMORY", "PURGE")
    return int((await server.command("INFO", "memory"))["used_memory_dataset"])


def _chunks(items: list[Any]) -> Iterator[list[Any]]:
    return (items[start : start + 200] for start in range(0, len(items), 200))
