"""ContainedPool: a server, workers and clients of a test's own, bystanders, and the judgement of what is left."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from lorapool.producer.client.client import Client
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.settings import redis_settings
from tests.conftest import running_server
from tests.containment.bystanders import Bystanders, Sample
from tests.fleet import WorkerProcess, add_adapters, alive, fake_worker

BYSTANDERS = ("by-1", "by-2", "by-3", "by-4")
LEASE_S = 1.0
STOP_S = 120.0  # for a worker to leave, on a busy machine


class ContainedPool:
    """``workers``: name → process, in the order of their start. ``report`` is told of each judgement."""

    def __init__(self, url: str, stack: AsyncExitStack, report: Callable[[str], None], **defaults: Any) -> None:
        self.url = url
        self.workers: dict[str, WorkerProcess] = {}
        self.client: Client  # an agent's
        self.redis: Redis  # a raw one
        self._stack, self._report, self._defaults = stack, report, defaults
        self._gone: dict[str, int] = {}
        self._bystander: Client
        self._digests: dict[str, str] = {}
        self._calm: Sample | None = None

    async def open(self) -> None:
        """Connect, and register the bystanders' adapters."""
        settings = redis_settings(self.url)
        self.redis = connect(settings)
        self._stack.push_async_callback(self.redis.aclose)
        self.client = await self._stack.enter_async_context(Client(self.url, agent="culprit"))
        self._bystander = await self._stack.enter_async_context(Client(self.url))
        self._digests = await self.adapters(*BYSTANDERS)

    async def adapters(self, *names: str) -> dict[str, str]:
        """Adapters that fake workers can serve; ref → digest."""
        return await add_adapters(self.redis, *names)

    def start(
        self,
        name: str,
        model: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        **config: Any,
    ) -> WorkerProcess:
        """One more worker, as the others but for what is given; a name may come again once its worker has gone."""
        before = self.workers.get(name)
        assert before is None or before.process.poll() is not None, f"{name} still runs"
        model = {"step_s": self._defaults["step_s"]} | dict(model or {})
        config = self._defaults["config"] | config
        worker = self.enter(fake_worker(self.url, name, model, environment, **config))
        self.workers[name] = worker
        self._gone.pop(name, None)
        return worker

    def enter(self, process: AbstractContextManager[WorkerProcess]) -> WorkerProcess:
        """A process that lives as long as the pool, and that ``judge`` does not ask after."""
        return self._stack.enter_context(process)

    async def ready(self, *names: str) -> None:
        """Wait until these workers beat."""
        await asyncio.gather(*(alive(self.redis, name) for name in names))

    async def left(self, worker: WorkerProcess, status: int, within_s: float = STOP_S) -> None:
        """See the worker leave with that exit status (−9: killed by SIGKILL); any other is a failure."""
        found = await asyncio.to_thread(worker.wait, within_s)
        assert status == found, f"{worker.name} left with {found} instead of {status}:\n{worker.log()[-2000:]}"
        self._gone[worker.name] = found

    async def calm(self, seconds: float = 2.0) -> Sample:
        """What is normal for the bystanders: nothing else happens meanwhile. Kept for their judgement."""
        async with self.bystanders() as warming:
            await warming.served(4 * len(self._digests))
        async with self.bystanders() as bystanders:
            await asyncio.sleep(seconds)
        assert [] == bystanders.sample.wrong()
        self._calm = bystanders.sample
        return self._calm

    def bystanders(self, every_s: float = 0.2) -> Bystanders:
        """Four agents with an adapter each and a light job every ``every_s``."""
        return Bystanders(self._bystander, self._digests, every_s=every_s, calm=self._calm, report=self._report)

    async def fsck(self) -> list[str]:
        """What a check of the queue finds, and repairs."""
        return [str(finding) for finding in await self.client.upkeep.fsck()]

    async def judge(self) -> None:
        """Workers live but those seen leaving; the queue is sound; each worker leaves with 0 when told to."""
        living = {name: worker for name, worker in self.workers.items() if name not in self._gone}
        ended = {name: worker.process.poll() for name, worker in living.items()}
        assert {} == {name: status for name, status in ended.items() if status is not None}, "workers left"
        found = await self.fsck()
        assert [] == found, f"fsck found {found}"
        for worker in living.values():
            worker.signal(signal.SIGTERM)
        statuses = await asyncio.gather(*(asyncio.to_thread(worker.wait, STOP_S) for worker in living.values()))
        assert dict.fromkeys(living, 0) == dict(zip(living, statuses, strict=True))


@asynccontextmanager
async def contained(
    *,
    workers: int = 2,
    step_s: float = 0.01,
    server: Sequence[str] = (),
    report: Callable[[str], None] = print,
    **config: Any,
) -> AsyncIterator[ContainedPool]:
    """A pool with workers ``w1``, ``w2``, …, each of whose steps sleeps ``step_s``; judged when it is left.

    ``config``: of each worker; a lease is a second and there is a slot for each of eight adapters, unless it says
    otherwise. ``server``: options of the server.
    """
    config = {"lease_s": LEASE_S, "slots": 8, "grace_s": 5.0} | config
    async with AsyncExitStack() as stack:
        url = stack.enter_context(running_server("--maxmemory-policy", "noeviction", *server))
        pool = ContainedPool(url, stack, report, step_s=step_s, config=config)
        await pool.open()
        for number in range(1, workers + 1):
            pool.start(f"w{number}")
        await pool.ready(*pool.workers)
        yield pool
        await pool.judge()
