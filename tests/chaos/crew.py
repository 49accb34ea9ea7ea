"""Crew: as many worker processes as there are berths, kept alive, each berth with its own way to the server."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from tests.chaos.plan import LEASE_S
from tests.chaos.proxy import FaultProxy
from tests.fleet import WorkerProcess, fake_worker

STEP_S = 0.02  # coarse: a step costs the machine more than its tokens do
SOCKET_TIMEOUT_S = "3"  # of workers: so long a silent connection is believed in


@dataclass
class Berth:
    """A place for one worker at a time. ``busy``: a fault on it has not passed yet."""

    proxy: FaultProxy
    worker: WorkerProcess
    number: int
    busy: bool = False
    begun: WorkerProcess | None = None  # the worker, once it was seen to be ready
    leaving: WorkerProcess | None = None  # its predecessor, told to stop: they share the way

    @property
    def name(self) -> str:
        return self.worker.name

    @property
    def free(self) -> bool:
        """May be struck: at work, alone on its way to the server, and no other fault upon either."""
        if self.leaving is not None and self.leaving.process.poll() is None:
            return False
        if self.proxy.delay_s:
            return False
        if self.begun is not self.worker and self.worker.events("ready"):
            self.begun = self.worker
        return not self.busy and self.begun is self.worker and self.worker.process.poll() is None


class Crew:
    """``config`` is of each worker. Logs are kept until the stack is left."""

    def __init__(self, stack: AsyncExitStack, **config: Any) -> None:
        self._stack = stack
        self._config = {"lease_s": LEASE_S, "grace_s": 2.0, "beat_s": 0.3} | config
        self.berths: list[Berth] = []
        self.all: list[WorkerProcess] = []
        self.leaving: list[WorkerProcess] = []  # told to stop, to be seen leaving

    async def man(self, size: int, port: int, scripts: Mapping[str, str]) -> None:
        """Start ``size`` workers."""
        for number in range(1, size + 1):
            proxy = await self._stack.enter_async_context(FaultProxy(port, scripts))
            self.berths.append(Berth(proxy, self._start(proxy, f"w{number}"), number))

    async def keep(self) -> None:
        """Replace whoever has died; until cancelled."""
        while True:
            for berth in self.berths:
                if not berth.busy and berth.worker.process.poll() is not None:
                    self.replace(berth)
            await asyncio.sleep(0.05)

    def replace(self, berth: Berth, *, same_name: bool = False) -> None:
        """A new worker in that berth; the old one is no longer looked after."""
        name = berth.name if same_name else f"w{berth.number}-{len(self.all)}"
        berth.worker = self._start(berth.proxy, name)

    def dismiss(self, berth: Berth) -> None:
        """SIGTERM, and a new worker in its place at once."""
        berth.worker.signal(signal.SIGTERM)
        self.leaving.append(berth.worker)
        berth.leaving = berth.worker
        self.replace(berth)

    async def stop(self) -> dict[str, int]:
        """All told to stop; exit status of each that was ever told to, once it had begun."""
        for berth in self.berths:
            berth.worker.signal(signal.SIGTERM)
        self.leaving += [berth.worker for berth in self.berths]
        statuses = {worker.name: await asyncio.to_thread(worker.wait, 60) for worker in self.leaving}
        return {worker.name: statuses[worker.name] for worker in self.leaving if worker.events("ready")}

    def log_lines(self, event: str) -> int:
        """How often any worker logged that."""
        return sum(len(worker.events(event)) for worker in self.all)

    def _start(self, proxy: FaultProxy, name: str) -> WorkerProcess:
        model = {"step_s": STEP_S, "device": name}  # so that a result says who wrote it
        worker = self._stack.enter_context(
            fake_worker(proxy.url, name, model, {"LORAPOOL_SOCKET_TIMEOUT_S": SOCKET_TIMEOUT_S}, **self._config)
        )
        self.all.append(worker)
        return worker
