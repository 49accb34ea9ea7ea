"""Ledger: what agents were promised (accepted id → the only right tokens) and what they were told; and the agents.

Agents are coroutines over real Clients. Each submits a job, insists until it is accepted, awaits it, writes down the
answer, and takes the next number. What they know comes from the client alone.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from lorapool.producer.client.client import Client
from lorapool.producer.client.handle import JobHandle
from lorapool.shared.errors import JobCancelled, JobExpired, JobFailed, RedisUnreachable
from tests.chaos.crew import STEP_S
from tests.chaos.strangers import LOOPING
from tests.fake_model import BROKEN, DEADLY, HANGING, POISON, expected

Sort = Literal[
    "plain", "streamed", "delayed", "cancelled", "late", "broken", "looping", "poison", "deadly", "hanging"
]  # fmt: skip
SORTS: dict[Sort, float] = {"plain": 70, "streamed": 12, "delayed": 8, "cancelled": 5, "late": 4.5, "broken": 0.5}
ENDS: dict[Sort, frozenset[str]] = {
    "plain": frozenset({"succeeded"}),
    "streamed": frozenset({"succeeded"}),
    "delayed": frozenset({"succeeded"}),
    "cancelled": frozenset({"succeeded", "cancelled"}),
    "late": frozenset({"succeeded", "expired"}),
    "broken": frozenset({"failed RuntimeError"}),
    "looping": frozenset({"failed TemplateEnded"}),
    "poison": frozenset({"failed Poisonous"}),
    "deadly": frozenset({"failed Poisonous"}),
    "hanging": frozenset({"failed Poisonous"}),
}
RARE: tuple[Sort, ...] = ("hanging", "looping", "poison", "deadly")  # in this order; a few of each
BEGINS = {"broken": BROKEN, "looping": "loop", "poison": POISON, "deadly": DEADLY, "hanging": HANGING}
NO_ANSWER = "no answer"
PATIENCE_S = 180.0  # for one job, on a machine that is busy with other things; whoever waits longer calls it lost


@dataclass
class Entry:
    """One job. ``end`` is what the agent was told, ``text`` what it was handed while waiting."""

    job_id: str
    sort: Sort
    adapter: str | None
    prompt: str
    tokens: int
    digest: str
    accepted: bool = False
    end: str = ""
    token_ids: tuple[int, ...] = ()
    text: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def right(self) -> tuple[int, ...]:
        return expected(self.prompt, self.digest, self.tokens)

    @property
    def request(self) -> dict[str, Any]:
        extra: dict[Sort, dict[str, Any]] = {
            "streamed": {"stream": True},
            "delayed": {"delay": 2 * STEP_S * self.tokens},
            "late": {"deadline": 3 * STEP_S * self.tokens},
        }
        common: dict[str, Any] = {"adapter": self.adapter, "max_new_tokens": self.tokens, "wait": True}
        if self.sort == "looping":
            common["messages"] = [{"role": "user", "content": self.prompt}]
        else:
            common["prompt"] = self.prompt
        return common | {"job_id": self.job_id} | extra.get(self.sort, {})


def draw(seed: int, count: int, digests: Mapping[str, str], rare: int) -> Iterator[Entry]:
    """``count`` jobs, ``rare`` of each rare sort among them, which take long and so come early."""
    random = Random(f"jobs {seed}")
    places = len(RARE) * rare
    rarities = {round((n + 0.5) * 0.6 * count / places): RARE[n % len(RARE)] for n in range(places)}
    adapters: Sequence[str | None] = [None, *digests]
    for number in range(count):
        sort: Sort = rarities.get(number) or random.choices(list(SORTS), list(SORTS.values()))[0]
        adapter = adapters[min(int(random.expovariate(0.25)), len(adapters) - 1)]
        adapter = LOOPING if sort == "looping" else adapter
        digest = digests.get(adapter, "") if adapter else ""
        begin = BEGINS.get(sort, "question")
        yield Entry(f"chaos{number}", sort, adapter, f"{begin} {number}", random.randint(3, 18), digest)


class Ledger:
    """All entries, and who works on them."""

    def __init__(self, entries: Iterator[Entry]) -> None:
        self._entries = entries
        self.entries: list[Entry] = []
        self.ended = 0
        self.most = math.inf  # entries that may be begun by now

    async def serve(self, clients: Sequence[Client], agents: int) -> None:
        """``agents`` agents a client, until all jobs have ended."""
        async with asyncio.TaskGroup() as group:
            for client in clients:
                for number in range(agents):
                    group.create_task(self._agent(client, f"agent{number % 5}"))

    async def _agent(self, client: Client, name: str) -> None:
        for entry in self._entries:
            self.entries.append(entry)
            place = len(self.entries)
            while place > self.most:  # noqa: ASYNC110 - the faults change it
                await asyncio.sleep(0.02)
            handle = await self._accepted(client, entry, name)
            entry.accepted = True
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._await(handle, entry)
            except TimeoutError:
                entry.end = NO_ANSWER
            self.ended += 1

    async def _accepted(self, client: Client, entry: Entry, agent: str) -> JobHandle:
        """Whoever hears nothing submits the same id again."""
        while True:
            try:
                return await client.submit(agent=agent, **entry.request)
            except RedisUnreachable:
                await asyncio.sleep(0.05)

    async def _await(self, handle: JobHandle, entry: Entry) -> None:
        try:
            if entry.sort == "streamed":
                async for delta in handle.stream():
                    entry.text = delta.text if delta.restart else entry.text + delta.text
            elif entry.sort == "cancelled":
                await self._cancel(handle, entry)
            result = await handle.result()
            entry.end, entry.token_ids = "succeeded", result.token_ids
        except JobFailed as error:
            entry.end = f"failed {error.error}"
        except (JobCancelled, JobExpired) as error:
            entry.end = type(error).__name__.removeprefix("Job").lower()
        entry.record = handle.ticket.record or {}

    async def _cancel(self, handle: JobHandle, entry: Entry) -> None:
        await asyncio.sleep(STEP_S * entry.tokens)
        while True:
            try:
                await handle.cancel()
            except RedisUnreachable:
                await asyncio.sleep(0.05)
            else:
                return
