"""Battle: one run of agents, workers and faults over one server, and its report.

Faults strike as jobs end, so that they are spread over the whole run whatever the machine's speed.
"""

from __future__ import annotations

import asyncio
import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lorapool.producer.client.client import Client
from lorapool.shared.errors import RedisUnreachable
from lorapool.shared.queue.protocol import Finding
from lorapool.shared.server.keys import Keys
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.server import Server
from lorapool.shared.server.settings import redis_settings
from tests.chaos import clock
from tests.chaos import ledger as jobs
from tests.chaos import plan as faults
from tests.chaos.crew import Crew
from tests.chaos.judge import Judge, Verdict, memory_bytes
from tests.chaos.ledger import Ledger
from tests.chaos.proxy import FaultProxy
from tests.chaos.server import DurableServer, Fsync, durable_server
from tests.chaos.strangers import Strangers
from tests.chaos.striker import Striker
from tests.chaos.toll import BUSY, Tally
from tests.containment.bystanders import Bystanders, Sample
from tests.fleet import add_adapters, alive
from tests.parts import Queue

ADAPTERS = tuple(f"adapter{n}" for n in range(12))
BYSTANDERS = ("by-1", "by-2", "by-3", "by-4")
EVERY_S = 0.5  # a bystander sends a job
CLIENTS, AGENTS = 4, 30  # agents a client
SOCKET_TIMEOUT_S = "3"
FEW = 4  # late writes, of which none may meet its job: it has ended by then, or a restart came between
PATIENCE_S = 1.0  # a fault strikes after so long even if no job ends
OPERATIONS = (
    "enqueue",
    "resolve",
    "states",
    "results",
    "cancel",
    "expire",
    "claim",
    "tick",
    "renew",
    "emit",
    "settle",
    "release",
    "beat",
    "tally",
)
STATES = ("delayed", "queued", "suspect", "running", "running, tokens out", "running alone")


@dataclass(frozen=True)
class Scale:
    """How much. ``rounds`` of the plan's shares; ``rare`` jobs of each rare sort: deadly ones, looping chats."""

    jobs: int
    rounds: int
    rare: int
    workers: int = 4


@dataclass
class Report:
    """What happened, to print and to assert on."""

    seed: int
    fsync: Fsync
    seconds: float
    tallies: dict[faults.Kind, Tally]
    spared: int
    late: int
    checks: int
    lost_replies: Counter[str]
    workers: int
    bystanders: Sample
    strangers: Counter[str]
    malformed: int
    verdict: Verdict

    @property
    def struck(self) -> int:
        return sum(tally.struck for tally in self.tallies.values())

    @property
    def busy(self) -> int:
        return sum(tally.busy for tally in self.tallies.values())

    def shortfalls(self) -> Iterator[str]:
        """Where the run itself showed less than it should."""
        for kind in faults.SHARES:
            if not self.tallies[kind].struck:
                yield f"no {kind} struck"
        if 2 * self.busy < self.struck:
            yield f"only {self.busy} of {self.struck} faults struck while {BUSY} or more jobs ran"
        if not self.lost_replies:
            yield "no reply was lost"
        if not self.verdict.numbers["counters"].get("stale"):
            yield "no stale write was tried"
        if not self.late and self.tallies["late write"].struck > FEW:
            yield "no late write met its job at another worker"
        if not self.malformed:
            yield "nothing malformed was met"

    def lines(self) -> Iterator[str]:
        """For people."""
        numbers = self.verdict.numbers
        ends = ", ".join(f"{count} {end}" for end, count in sorted(numbers["ends"].items()))
        yield f"seed {self.seed}: {sum(numbers['ends'].values())} jobs accepted and ended once: {ends}"
        yield (
            f"{self.struck} faults in {self.seconds:.0f} s, {self.busy} of them while 8 or more jobs ran; "
            f"{self.workers} worker processes, appendfsync {self.fsync}; jobs in reach of the faults, by state:"
        )
        yield f"  {'':13}struck  8 run " + "".join(f"{state:>{len(state) + 2}}" for state in STATES)
        for kind, tally in self.tallies.items():
            reached = "".join(f"{tally.jobs[state]:>{len(state) + 2}}" for state in STATES)
            yield f"  {kind:12} {tally.struck:6} {tally.busy:6} {reached}"
        counted = numbers["counters"]
        attempts = Counter({name: counted.get(name, 0) for name in ("claimed", "reaped", "released", "retried")})
        yield f"replies lost after the server acted: {_listed(self.lost_replies)}"
        yield f"attempts: {_listed(attempts)}"
        stale = counted.get("stale", 0)
        yield f"stale writes refused: {stale} counted, {numbers['refusals']} told by workers that lived to tell"
        yield f"late writes that met their jobs at another worker: {self.late}"
        yield f"strikes spared for a job that was lost before: {self.spared}; fsck runs meanwhile: {self.checks}"
        yield f"bystanders: {self.bystanders}; 99 of 100 within {self.bystanders.quantile_s(0.99):.1f} s"
        yield f"hostile adapters: {_listed(self.strangers)}; malformed entries met: {self.malformed}"
        yield f"memory beyond the start's, without what expires by itself: {numbers['left_bytes'] / 1024:.0f} KiB"


class Battle:
    """One run. ``seed`` draws the jobs and the faults; an even one syncs each write and is killed, an odd one not."""

    def __init__(self, seed: int, scale: Scale) -> None:
        self._seed, self._scale = seed, scale
        self._fsync: Fsync = "always" if seed % 2 == 0 else "everysec"
        self._checks = 0
        self._findings: list[Finding] = []

    async def fight(self) -> Report:
        """Start everything, let the agents work under faults, judge."""
        async with AsyncExitStack() as stack:
            durable = stack.enter_context(durable_server(self._fsync))
            stack.enter_context(_environment("LORAPOOL_SOCKET_TIMEOUT_S", SOCKET_TIMEOUT_S))
            stack.enter_context(_environment(clock.VARIABLE, "1"))
            stack.enter_context(clock.followed())
            await durable.start()
            return await self._fight(stack, durable)

    async def _fight(self, stack: AsyncExitStack, durable: DurableServer) -> Report:
        redis = await stack.enter_async_context(connect(redis_settings(durable.url)))
        server, keys = Server(redis), Keys("default")
        queue, upkeep = Queue(redis, keys.pool), Queue(redis, keys.pool)
        stack.push_async_callback(queue.close)
        before_bytes = await memory_bytes(server)
        scripts = {queue._scripts[name].sha: name for name in OPERATIONS}
        strangers = Strangers(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lorapool-strangers-"))))
        crew = Crew(stack, strangers.model, **strangers.mounted)
        await crew.man(self._scale.workers, durable.port, scripts)
        await asyncio.gather(*(alive(redis, berth.name) for berth in crew.berths))
        digests, theirs = await add_adapters(redis, *ADAPTERS), await add_adapters(redis, *BYSTANDERS)
        await strangers.looping(redis)
        ledger = Ledger(jobs.draw(self._seed, self._scale.jobs, digests, self._scale.rare))
        ways = [await stack.enter_async_context(FaultProxy(durable.port, scripts)) for _ in range(CLIENTS)]
        clients = [await stack.enter_async_context(Client(way.url)) for way in ways]
        inboxes = [client._name for client in clients]
        striker = Striker(crew, ways, durable, redis, strangers, inboxes=inboxes, refs=tuple(digests))
        judge = Judge(server, queue, upkeep, before_bytes)
        bystander = await stack.enter_async_context(Client(durable.url))
        bystanders = Bystanders(bystander, theirs, every_s=EVERY_S, patience_s=jobs.PATIENCE_S)

        began = time.monotonic()
        async with bystanders:
            await self._under_fire(crew, ledger, clients, striker, judge)
        seconds = time.monotonic() - began
        left = await crew.stop()
        await asyncio.gather(*(client.close() for client in clients))
        refusals = crew.log_lines("stale: refused, the lease was lost") + crew.log_lines("lease lost")
        dropped = sum(map(int, await server.command("HVALS", keys.one("malformed"))))
        malformed = dropped + crew.log_lines("malformed, stepped over")
        disturbed = await judge.bystanders(bystanders.sample, theirs)
        verdict = await judge.judge(ledger, inboxes, refusals)
        verdict.complaints += [*left, *strangers.complaints, *disturbed]
        verdict.complaints += [f"fsck found, under fire, {finding}" for finding in self._findings]
        lost = sum((way.lost for way in (*ways, *(berth.proxy for berth in crew.berths))), Counter[str]())
        return Report(
            self._seed,
            self._fsync,
            seconds,
            striker.toll.tallies,
            striker.aim.spared,
            striker.late,
            self._checks,
            lost,
            len(crew.all),
            bystanders.sample,
            strangers.ends,
            malformed,
            verdict,
        )

    async def _under_fire(
        self, crew: Crew, ledger: Ledger, clients: Sequence[Client], striker: Striker, judge: Judge
    ) -> None:
        keeping = [asyncio.ensure_future(duty) for duty in (crew.keep(), self._check_again(judge))]
        try:
            async with asyncio.TaskGroup() as group:  # agents wait for faults: one that cannot strike ends them
                group.create_task(self._strikes(ledger, striker))
                group.create_task(ledger.serve(clients, AGENTS))
            await striker.calm()
        finally:
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)
        for task in keeping:
            if not task.cancelled() and (error := task.exception()):
                raise error

    async def _strikes(self, ledger: Ledger, striker: Striker) -> None:
        """A fault each time a share of the jobs has ended; the agents do not run ahead of the faults."""
        plan = faults.draw(self._seed, self._scale.rounds)
        share = self._scale.jobs / (len(plan) + 2)
        for number, fault in enumerate(plan, start=1):
            ledger.most = share * (number + 1) + 2 * CLIENTS * AGENTS
            await self._turn(ledger, share * number)
            await striker.strike(fault)
        ledger.most = math.inf

    async def _turn(self, ledger: Ledger, ended: float) -> None:
        give_up_at = time.monotonic() + PATIENCE_S
        while ledger.ended < ended and time.monotonic() < give_up_at:  # noqa: ASYNC110 - agents change it
            await asyncio.sleep(0.02)

    async def _check_again(self, judge: Judge) -> None:
        """fsck, again and again while everything is going on."""
        while True:
            try:
                self._findings += await judge.fsck()
                self._checks += 1
            except RedisUnreachable:
                pass
            await asyncio.sleep(0.3)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "none"
