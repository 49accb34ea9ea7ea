"""A server that comes back without its data costs its jobs; who still holds a request has it served all the same."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Any

from lorapool.producer import Client, JobLost, LorapoolError, Result
from tests.conftest import free_port, running_server
from tests.fleet import alive, fake_worker

JOBS = 48
HEARD_S = 10.0  # after the server's return: two seconds between tries, and room for a busy machine


def asked(whose: str) -> list[dict[str, Any]]:
    item = {"adapter": None, "max_new_tokens": 32}
    return [{**item, "prompt": f"{whose} {n}", "agent": f"{whose}-{n}"} for n in range(JOBS)]


async def test_a_restart_without_data_while_jobs_run() -> None:
    """One agent asked for resubmission and gets every answer by doing nothing; the other hears of each loss within
    seconds, by id. The worker lives through it and serves again."""
    port = free_port()
    server = ExitStack()
    url = server.enter_context(running_server(port=port))
    with server, fake_worker(url, "w1", {"step_s": 0.02}) as worker:
        keeping, telling = await Client(url).__aenter__(), await Client(url).__aenter__()
        await alive(telling._parts.connection._redis, "w1")
        keeps = asyncio.create_task(keeping.gather(asked("kept"), timeout=90, on_lost="resubmit"))
        jobs = await telling.submit_many(asked("told"))
        tells = asyncio.create_task(telling.gather(jobs))
        await asyncio.sleep(0.5)
        assert not keeps.done()
        server.close()
        with running_server(port=port):
            told = await asyncio.wait_for(tells, HEARD_S)
            lost = [(job, error) for job, error in zip(jobs, told, strict=True) if isinstance(error, LorapoolError)]
            assert lost, "the server stopped too late"
            assert {JobLost} == {type(error) for _, error in lost}
            assert [job.id for job, _ in lost] == [error.job_id for _, error in lost]
            assert [Result] * JOBS == [type(answer) for answer in await keeps]
            await keeping.close()
            await telling.close()
            assert (None, 0) == (worker.process.poll(), worker.stop())
