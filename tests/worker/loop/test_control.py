"""What others ask of a worker, and that a request which makes no sense costs nothing but itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from lorapool.shared.queue.protocol import JobLease
from lorapool.worker.loop.control import Control
from tests.fleet import until

LEASE = JobLease("0.j", "L")


class Desk:
    """A control over parts that remember."""

    def __init__(self, *requests: Mapping[str, str]) -> None:
        self.read: list[str] = []
        self.done: list[str] = []
        self.verifying = asyncio.Event()
        self._requests = [(f"{number}-0", dict(request)) for number, request in enumerate(requests, 1)]
        self.held = {"0.j": SimpleNamespace(lease=LEASE)}
        jobs: Any = SimpleNamespace(
            get=self.held.get, mark_cancelled=lambda lease: self.done.append(f"mark {lease[1]}")
        )
        settler: Any = SimpleNamespace(cancel=self._cancel)
        admission: Any = SimpleNamespace(prefetch=self._prefetch)
        validator: Any = SimpleNamespace(request=self._validate, verify=self._verify)
        queue: Any = SimpleNamespace(control=self._requests_after)
        self.control = Control(queue, "w1", jobs, settler, admission, validator)

    async def _requests_after(self, _worker: str, last_id: str, _block_s: float) -> list[tuple[str, dict[str, str]]]:
        self.read.append(last_id)
        new = [entry for entry in self._requests if int(entry[0].partition("-")[0]) > int(last_id.partition("-")[0])]
        if not new:
            await asyncio.sleep(3600)
        return new[:1]

    def _mark(self, lease: JobLease) -> None:
        self.done.append(f"mark {lease.lease}")

    async def _cancel(self, job: Any) -> None:
        self.done.append(f"cancel {job.lease.lease}")

    async def _prefetch(self, ref: str) -> None:
        if not ref:
            raise ValueError("no ref")
        self.done.append(f"load {ref}")

    async def _validate(self, _request: Mapping[str, str]) -> None:
        self.done.append("validate")

    async def _verify(self, _request: Mapping[str, str], worker: str) -> None:
        self.done.append(f"verify by {worker}")
        await self.verifying.wait()

    async def run(self, expected: int) -> list[str]:
        running = asyncio.create_task(self.control.run())
        await until(lambda: len(self.done) >= expected)
        running.cancel()
        await asyncio.wait([running])
        return self.done


async def test_each_request_is_done_once_in_order() -> None:
    """And the next read goes on behind it."""
    desk = Desk({"op": "load", "ref": "a@1"}, {"op": "validate"}, {"op": "load", "ref": "b@1"})
    assert ["load a@1", "validate", "load b@1"] == await desk.run(3)
    assert ["0", "1-0", "2-0"] == desk.read[:3]


async def test_what_makes_no_sense_is_stepped_over() -> None:
    """An unknown request, one without a kind, and one whose fields are wrong."""
    desk = Desk({"op": "dance"}, {}, {"op": "load"}, {"op": "load", "ref": "a@1"})
    assert ["load a@1"] == await desk.run(1)


async def test_only_the_attempt_that_was_meant_is_cancelled() -> None:
    """A request for an earlier lease, or a job that is not held, marks and cancels nothing that runs."""
    other = {"op": "cancel", "job_id": "0.j", "lease": "older"}
    gone = {"op": "cancel", "job_id": "0.gone", "lease": "x"}
    desk = Desk(other, gone, {"op": "cancel", "job_id": "0.j", "lease": "L"})
    assert ["mark older", "mark x", "mark L", "cancel L"] == await desk.run(4)


async def test_verifying_holds_up_nothing_else() -> None:
    """It goes on beside the next request, and is broken off at the end."""
    desk = Desk({"op": "verify", "ref": "a@1"}, {"op": "validate"})
    assert {"verify by w1", "validate"} == set(await desk.run(2))
    await desk.control.close()
    assert not desk.control._verifying
