"""A client that is closed, forked or asked for very much at once costs its own calls, each of which comes back."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest

from lorapool.producer import Client, ClientClosed, Fate, JobHandle, Result
from tests.conftest import running_server
from tests.fleet import alive, fake_worker
from tests.producer.client.test_stalls import TURN_S, turns

MANY = 20_000
FORKING = """
import asyncio, os, sys, warnings
from lorapool.producer import Client as AsyncClient, ForeignClient
from lorapool.producer.sync import Client, JobHandle
warnings.simplefilter("ignore")

def refused(call, *arguments):
    try:
        call(*arguments)
    except ForeignClient as error:
        assert "create the client in the child" in str(error), error
        return
    raise AssertionError(f"{call} was served")

pool = Client(sys.argv[1], pool=sys.argv[2]).__enter__()
job = pool.submit(None, "before")

async def main():
    async with AsyncClient(sys.argv[1], pool=sys.argv[2]) as client:
        theirs = await client.submit(None, "theirs", stream=True)
        waiting = asyncio.create_task(theirs.result())
        await asyncio.sleep(0.1)
        child = os.fork()
        if not child:
            try:
                forked(client, theirs)
                os._exit(0)
            except BaseException as error:
                print(type(error).__name__, error, flush=True)
                os._exit(1)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        await client.submit(None, "after")
        waiting.cancel()
        return status

def forked(client, theirs):
    asyncio.events._set_running_loop(None)
    refused(pool.submit, None, "x")
    refused(pool.gather, [job])
    refused(job.result)
    refused(lambda: next(job.stream()))
    pool.close()
    calls = [lambda: client.submit(None, "x"), theirs.result, theirs.state, lambda: anext(theirs.stream())]
    for call in calls:
        refused(asyncio.run, asyncio.wait_for(call(), 5))
    asyncio.run(client.close())

status = asyncio.run(main())
assert pool.submit(None, "after").created
pool.close()
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.fixture
def server() -> Iterator[str]:
    with running_server("--maxmemory-policy", "noeviction") as url:
        yield url


def test_a_fork_is_told_to_create_its_own(server: str) -> None:
    """By the blocking client and the other, by every call, at once; closing it there is harmless to its parent."""
    program = [sys.executable, "-c", FORKING, server, "default"]
    found = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert (0, "") == (found.returncode, found.stdout), found.stderr


async def test_a_close_in_the_middle_of_many_calls(server: str) -> None:
    """Every call comes back, with a handle or with what became of its job; what was accepted is answered, once."""
    with fake_worker(server, "w1", {"step_s": 0.0}):
        async with Client(server) as other:
            await alive(other._parts.connection._redis, "w1")
            closing = await Client(server).__aenter__()
            calls = [asyncio.create_task(closing.submit(None, f"x {n}", agent=f"a{n}")) for n in range(2_000)]
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            await closing.close()
            outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 20)
            assert {JobHandle, ClientClosed} >= {type(outcome) for outcome in outcomes}
            refused = [error for error in outcomes if isinstance(error, ClientClosed)]
            assert all(error.job_id and error.fate in {Fate.NOT_QUEUED, Fate.UNKNOWN} for error in refused)
            accepted = [other.get(job.id) for job in outcomes if isinstance(job, JobHandle)]
            assert {Result} >= {type(answer) for answer in await other.gather(accepted, timeout=60)}
            unsure = sum(error.fate is Fate.UNKNOWN for error in refused)
            assert len(accepted) <= (await other.stats(None)).get("submitted", 0) <= len(accepted) + unsure
            with pytest.raises(ClientClosed):
                await closing.submit(None, "late")


async def test_very_many_jobs_in_one_call(server: str) -> None:
    """The event loop of who submits 20,000 goes on all along, and each has its handle, in order."""
    async with Client(server) as client:
        await client.submit(None, "the base model is there")
        await client.upkeep.limits("_base", max_depth=2 * MANY)
        items = [
            {"adapter": None, "prompt": f"job {n}", "agent": f"a{n % 1000}", "job_id": f"j-{n}"} for n in range(MANY)
        ]
        async with turns() as kept:
            jobs = await client.submit_many(items)
    assert [f"0.j-{n}" for n in range(MANY)] == [job.id for job in jobs if isinstance(job, JobHandle)]
    assert max(kept) < TURN_S
