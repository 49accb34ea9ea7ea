"""Crew: as many worker processes as there are berths, kept alive, each berth with its own way to the server."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorapool.worker.engine_process.child import NAME
from tests.chaos.ailments import Ailments
from tests.chaos.plan import LEASE_S, STEP_TIMEOUT_S
from tests.chaos.proxy import FaultProxy
from tests.fleet import WorkerProcess, fake_worker

STEP_S = 0.02  # coarse: a step costs the machine more than its tokens do
TEMPLATE_S = 1.0  # that a chat's template may compute
SOCKET_TIMEOUT_S = "3"  # of workers: so long a silent connection is believed in
FAIR = frozenset({0, -signal.SIGKILL})  # a deadly job may meet a worker that is leaving
STATED = ("the engine sick", "the engine hung", "the device fails its check")  # why one may leave, with status 1
PARENT = 1  # field of /proc/<pid>/stat after the name and the state


@dataclass
class Berth:
    """A place for one worker at a time. ``busy``: a fault on it has not passed yet."""

    proxy: FaultProxy
    worker: WorkerProcess
    number: int
    folder: Path  # what ails its device
    busy: bool = False
    begun: WorkerProcess | None = None  # the worker, once it was seen to be ready
    leaving: WorkerProcess | None = None  # its predecessor, told to stop: they share the way

    @property
    def name(self) -> str:
        return self.worker.name

    @property
    def ailments(self) -> Ailments:
        return Ailments(self.folder)

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
    """``model`` and ``config`` are of each worker. Logs are kept until the stack is left."""

    def __init__(self, stack: AsyncExitStack, model: Mapping[str, Any], **config: Any) -> None:
        self._stack, self._model = stack, dict(model)
        self._config = {"lease_s": LEASE_S, "step_timeout_s": STEP_TIMEOUT_S, "grace_s": 2.0, "beat_s": 0.3} | config
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lorapool-ailments-")))
        self.berths: list[Berth] = []
        self.all: list[WorkerProcess] = []

    async def man(self, size: int, port: int, scripts: Mapping[str, str]) -> None:
        """Start ``size`` workers."""
        for number in range(1, size + 1):
            proxy = await self._stack.enter_async_context(FaultProxy(port, scripts))
            folder = self._folder / str(number)
            folder.mkdir()
            self.berths.append(Berth(proxy, self._start(proxy, f"w{number}", folder), number, folder))

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
        berth.worker = self._start(berth.proxy, name, berth.folder)

    def dismiss(self, berth: Berth) -> None:
        """SIGTERM, and a new worker in its place at once."""
        berth.worker.signal(signal.SIGTERM)
        berth.leaving = berth.worker
        self.replace(berth)

    async def stop(self) -> list[str]:
        """All told to stop; what is wrong with how any worker ended that there was, once it had begun."""
        for berth in self.berths:
            berth.worker.signal(signal.SIGTERM)
        statuses = [(worker, await asyncio.to_thread(worker.wait, 60)) for worker in self.all]
        return [
            f"{worker.name} left with status {status}: {worker.log()[-500:]}"
            for worker, status in statuses
            if status not in FAIR and worker.events("ready") and not states_reason(worker, status)
        ]

    def log_lines(self, event: str) -> int:
        """How often any worker logged that."""
        return sum(len(worker.events(event)) for worker in self.all)

    def _start(self, proxy: FaultProxy, name: str, folder: Path) -> WorkerProcess:
        model = {"step_s": STEP_S, "template_s": TEMPLATE_S, "ailments": str(folder)}
        model["device"] = name  # so that a result says who wrote it
        environment = {"LORAPOOL_SOCKET_TIMEOUT_S": SOCKET_TIMEOUT_S}
        worker = self._stack.enter_context(
            fake_worker(proxy.url, name, model | self._model, environment, **self._config)
        )
        self.all.append(worker)
        return worker


def states_reason(worker: WorkerProcess, status: int) -> bool:
    """It left by itself, and said that its engine could not be brought up again, and why."""
    told = [str(event.get("exception", "")) for event in worker.events("worker cannot go on")]
    return status == 1 and any(reason in text for reason in STATED for text in told)


def engine_of(worker: WorkerProcess) -> int | None:
    """The process of its engine, if there is one now."""
    return next(_children(worker.process.pid, NAME), None)


def _children(parent: int, name: str) -> Iterator[int]:
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            head, _, stat = (folder / "stat").read_text(errors="replace").rpartition(")")
        except OSError:
            continue
        if stat.split()[PARENT] == str(parent) and head.partition("(")[2] == name:
            yield int(folder.name)
