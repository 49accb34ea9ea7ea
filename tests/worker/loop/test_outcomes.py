"""How a worker ends jobs that are cancelled, late or wrong while other jobs run on."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from lorapool.producer.client.client import Client
from lorapool.shared.errors import (
    AdapterConflict,
    AdapterRefused,
    CheckpointError,
    InvalidRequest,
    JobCancelled,
    JobExpired,
    PayloadTooLarge,
    UnknownAdapter,
    UnsupportedVersion,
)
from lorapool.worker.loop.admission import PromptTooLong
from lorapool.worker.loop.settler import _outcome_of
from tests.conftest import running_server
from tests.fake_model import expected
from tests.fleet import WorkerProcess, alive, fake_worker, until

STEP_S, RENEWAL_S = 0.02, 20.0


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """A server that these tests share, and so one worker is enough."""
    with running_server() as url:
        yield url


@pytest.fixture(scope="module")
def worker(redis_url: str) -> Iterator[WorkerProcess]:
    with fake_worker(redis_url, model={"step_s": STEP_S}, lease_s=3 * RENEWAL_S, max_batch=2, claim_ahead=0) as worker:
        yield worker


@pytest.fixture
async def pool(redis_url: str, redis: Redis, worker: WorkerProcess) -> AsyncIterator[Client]:
    await alive(redis, worker.name)
    async with Client(redis_url) as pool:
        yield pool


async def test_a_cancelled_job_leaves_the_batch_at_once(pool: Client):
    """Through the control stream, long before the next renewal; its row is free, its neighbour's answer untouched."""
    neighbour = await pool.submit(None, "neighbour", max_new_tokens=150)
    cancelled = await pool.submit(None, "cancelled", max_new_tokens=4000, stream=True)
    deltas = cancelled.stream()
    await anext(deltas)
    began = time.monotonic()
    assert "running" == await cancelled.cancel()
    with pytest.raises(JobCancelled):
        await cancelled.result(RENEWAL_S)
    assert time.monotonic() - began < RENEWAL_S / 2
    tokens = int((await cancelled.record())["completion_tokens"])
    assert 0 < tokens < 1000
    after = await pool.submit(None, "after", max_new_tokens=3)  # finds the row free while the neighbour runs
    assert expected("after", "", 3) == (await after.result(RENEWAL_S)).token_ids
    assert expected("neighbour", "", 150) == (await neighbour.result(30)).token_ids
    await deltas.aclose()


async def test_a_job_that_is_late_while_it_runs_is_stopped(pool: Client):
    """At its deadline, not at the next renewal."""
    late = await pool.submit(None, "late", max_new_tokens=4000, deadline=0.6)
    await until(lambda: _running(late))
    with pytest.raises(JobExpired):
        await late.result(RENEWAL_S / 2)
    assert "while it ran" in (await late.record())["message"]


async def test_a_job_that_is_late_before_it_starts_never_does(pool: Client):
    """It waits for a row until its deadline, and expires without an attempt."""
    blockers = [await pool.submit(None, f"b{n}", max_new_tokens=4000) for n in range(2)]
    for blocker in blockers:
        await until(lambda blocker=blocker: _running(blocker))
    late = await pool.submit(None, "late", max_new_tokens=3, deadline=0.3)
    with pytest.raises(JobExpired):
        await late.result(RENEWAL_S)
    record = await late.record()
    assert ("0", "while it waited") == (record["attempts"], record["message"][-15:])
    for blocker in blockers:
        await blocker.cancel()


async def _running(job) -> bool:
    return await job.state() == "running"


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        *((kind("x"), "failed") for kind in (InvalidRequest, PayloadTooLarge, PromptTooLong)),
        *((kind("x"), "failed") for kind in (CheckpointError, UnknownAdapter, AdapterRefused, AdapterConflict)),
        (UnsupportedVersion("x"), "dead"),
        *((kind("x"), "retry") for kind in (RuntimeError, OSError, MemoryError, KeyError)),
    ],
)
def test_only_what_may_pass_is_tried_again(error: Exception, outcome: str):
    """The same request, the same adapter: the same refusal; a newer release may serve it; anything else may pass."""
    assert outcome == _outcome_of(error)
