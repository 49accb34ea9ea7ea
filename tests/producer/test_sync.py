"""The blocking client: the same names, from code without an event loop."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lorapool.producer import (
    ClientClosed,
    InvalidRequest,
    JobState,
    LorapoolError,
    RedisUnreachable,
    Result,
    UnknownJob,
    sync,
)
from lorapool.producer.client import adapters, client, handle, schedules
from lorapool.producer.client.loop_thread import LoopThread
from lorapool.producer.operator import upkeep
from lorapool.producer.sync import Client, JobHandle
from lorapool.shared.access.key_book import KeyBook


@pytest.fixture
def pool(redis_url: str, pool_name: str) -> Iterator[Client]:
    with Client(redis_url, pool=pool_name) as pool:
        yield pool


def test_a_job_is_submitted_awaited_and_streamed(pool: Client, threaded_worker: None) -> None:
    """Without an await anywhere."""
    job = pool.submit(None, "a b c", stream=True)
    assert "".join(delta.text for delta in job.stream(timeout=10)) == "_base heard: a b c"
    assert job.result(timeout=10).text == "_base heard: a b c"
    assert (job.state(), job.cancel()) == (JobState.SUCCEEDED, JobState.SUCCEEDED)
    assert job.explain().reason == "succeeded"
    assert pool.get(job.id).record()["agent"] == "anonymous"
    assert pool.stats(None)["succeeded"] == 1


def test_a_stream_may_be_left_early(pool: Client, threaded_worker: None) -> None:
    """Breaking out of the loop leaves nothing behind."""
    for delta in pool.submit(None, "a b c", stream=True).stream(timeout=10):
        assert delta.text == "_base"
        break


def test_gather_takes_requests_and_handles(pool: Client, threaded_worker: None) -> None:
    """As the asynchronous one."""
    early = pool.submit(None, "early")
    answers = pool.gather([(None, "one"), early, {"adapter": None, "prompt": "x", "top_k": -1}], timeout=10)
    assert [type(answer) for answer in answers] == [Result, Result, InvalidRequest]


def test_adapters_are_registered_and_listed(
    pool: Client, threaded_worker: None, make_adapter: Callable[..., Path]
) -> None:
    """The same calls, blocking."""
    assert pool.adapters.register("cfo", make_adapter(), aliases=["CFO"]).status == "ready"
    assert pool.adapters.alias("money", "cfo").ref == "cfo@1.0.0"
    assert pool.adapters.aliases() == {"cfo": "cfo@1.0.0", "money": "cfo@1.0.0"}
    assert [record.ref for record in pool.adapters.list()] == [pool.adapters.get("Money").ref]
    assert pool.submit("money", "hi").result(timeout=10).adapter == "cfo@1.0.0"


def test_a_closed_client_says_so_and_leaves_no_thread(redis_url: str, pool_name: str) -> None:
    """Closing twice is harmless."""
    before = _loops()
    with Client(redis_url, pool=pool_name) as pool:
        job = pool.submit(None, "x")
        assert 1 == len(_loops() - before)
    pool.close()
    with pytest.raises(LorapoolError, match="closed"):
        job.state()
    assert set() == _loops() - before


def test_an_unreachable_server_leaves_no_thread() -> None:
    """The error of entering is raised after cleaning up."""
    before = _loops()
    with pytest.raises(RedisUnreachable), Client("redis://127.0.0.1:1"):
        pass
    assert set() == _loops() - before


@pytest.mark.parametrize("call", [lambda job: job.result(), lambda job: next(job.stream())])
def test_a_call_of_another_thread_ends_with_the_client(
    redis_url: str, pool_name: str, call: Callable[[JobHandle], Any]
) -> None:
    """It raises as soon as the client is closed below it."""
    pool = Client(redis_url, pool=pool_name).__enter__()
    job = pool.submit(None, "x", stream=True)
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(call, job)
        time.sleep(0.2)
        pool.close()
        with pytest.raises(ClientClosed):
            waiting.result(timeout=5)


def test_threads_that_submit_while_it_closes_all_come_back(redis_url: str, pool_name: str) -> None:
    """With a handle, or told that it is closed."""
    pool = Client(redis_url, pool=pool_name).__enter__()

    def submit(n: int) -> JobHandle | ClientClosed:
        try:
            return pool.submit(None, "x", agent=f"a{n}")
        except ClientClosed as error:
            return error

    with ThreadPoolExecutor(16) as threads:
        calls = [threads.submit(submit, n) for n in range(400)]
        closing = [threads.submit(pool.close) for _ in range(2)]
        outcomes = [call.result(timeout=10) for call in (*calls, *closing)]
    assert {JobHandle, ClientClosed, type(None)} >= {type(outcome) for outcome in outcomes}


def test_a_callback_may_not_close_its_own_client(pool: Client, tmp_path: Path) -> None:
    """It would wait for its own end; and one that exits ends the call, not the client."""
    manifest = tmp_path / "adapters.toml"
    manifest.write_text("[[adapters]]\nid = 'x'\nuri = '/nowhere'\n")
    with pytest.raises(LorapoolError, match="waits for itself"):
        pool.adapters.import_manifest(manifest, on_total=lambda _: pool.close())
    with pytest.raises(SystemExit):
        pool.adapters.import_manifest(manifest, on_total=lambda _: sys.exit(3))
    assert pool.submit(None, "x").created


async def test_an_awaited_call_ends_with_the_thread_it_is_on() -> None:
    """It raises what happened; its caller was not cancelled, and is not told so. One that is, is."""
    thread = LoopThread()
    waiting, cancelled = (asyncio.create_task(thread.call(asyncio.sleep(60))) for _ in range(2))
    await asyncio.sleep(0.05)
    cancelled.cancel()
    await asyncio.to_thread(thread.stop)
    with pytest.raises(ClientClosed):
        await asyncio.wait_for(waiting, 5)
    with pytest.raises(asyncio.CancelledError):
        await cancelled


def test_a_stream_left_after_its_client_leaves_no_error(redis_url: str, pool_name: str, threaded_worker: None) -> None:
    """Nor is one left running."""
    with Client(redis_url, pool=pool_name) as pool:
        stream = pool.submit(None, "a b c", stream=True).stream(timeout=10)
        next(stream)
    stream.close()  # type: ignore[attr-defined]  # a generator


def test_a_callback_may_not_wait_for_its_own_client(pool: Client, tmp_path: Path) -> None:
    """The call would wait for the thread that it is on."""
    manifest = tmp_path / "adapters.toml"
    manifest.write_text("[[adapters]]\nid = 'x'\nuri = '/nowhere'\n")
    with pytest.raises(LorapoolError, match="waits for itself"):
        pool.adapters.import_manifest(manifest, on_total=lambda _: pool.schedules.remove("x"))


def test_operators_work_without_a_loop_too(pool: Client) -> None:
    """Each of an operator's calls, on a pool with one waiting job."""
    pool.submit(None, "hello")
    assert ("_base", "_base") == (pool.upkeep.pause("_base"), pool.upkeep.resume("_base"))
    assert 8 == pool.upkeep.limits("_base", max_inflight=8).max_inflight
    assert 1 == pool.upkeep.purge_waiting("_base")
    assert 0 == pool.upkeep.purge_dead()
    assert [] == pool.upkeep.dead()
    with pytest.raises(UnknownJob):
        pool.upkeep.redrive("nobody")
    assert [] == pool.upkeep.fsck()


# What only the gateway asks for, and a page of the console.
OF_GATEWAY = {"send", "shed", "states", "window", "pool", "stats_of", "worker_names", "workers_of"}


@pytest.mark.parametrize(
    ("blocking", "asynchronous", "own"),
    [
        (sync.Client, client.Client, OF_GATEWAY),
        (sync.JobHandle, handle.JobHandle, {"waits_in"}),
        (sync.Adapters, adapters.Adapters, {"resolve", "ref", "serving", "some"}),
        (sync.PoolUpkeep, upkeep.PoolUpkeep, {"dead_page"}),
        (sync.Schedules, schedules.Schedules, set()),
        (sync.Keys, KeyBook, {"find", "any"}),
    ],
)
def test_the_names_are_the_same(blocking: type, asynchronous: type, own: set[str]) -> None:
    """Every public method of the asynchronous class has its blocking twin (but for what only others of ours ask)."""
    assert _names(blocking) == _names(asynchronous) - own


def _names(kind: type) -> set[str]:
    slots = getattr(kind, "__slots__", ())
    return {name for name in vars(kind) if not name.startswith("_") and name not in slots}


def _loops() -> set[threading.Thread]:
    """The threads that carry a blocking client's event loop; those of earlier tests may be among them."""
    return {thread for thread in threading.enumerate() if thread.name == "lorapool-sync"}
