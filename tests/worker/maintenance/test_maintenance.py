"""Maintenance workers as processes: the chores are done, once a tick, and jobs need none of it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from arq.worker import Worker as ArqWorker
from redis.asyncio import Redis
from redis.exceptions import WatchError
from typer.testing import CliRunner

from lorapool.producer.client.client import Client
from lorapool.shared.connection import PoolConnection
from lorapool.shared.errors import JobExpired, RedisAuthFailed
from lorapool.shared.server.settings import redis_settings
from lorapool.shared.timetable.chores import ChoreBook
from lorapool.worker.adapters.cache_folder import CacheFolder
from lorapool.worker.cli import app
from lorapool.worker.maintenance.maintenance import Maintenance, Periods
from tests.conftest import free_port, running_server
from tests.fake_model import expected
from tests.fleet import WorkerProcess, add_adapters, alive, fake_worker, started, until

QUICK = ("--schedule-every", "0.5", "--fsck-every", "0.5", "--digest-every", "1", "--prune-every", "1")
CHORES = {"schedule", "fsck", "dead_letters", "dead_workers"}


@contextmanager
def maintenance(redis_url: str, *flags: str, name: str = "m1") -> Iterator[WorkerProcess]:
    program = str(Path(sys.executable).parent / "lorapool-worker")
    command = [program, "maintenance", "--redis-url", redis_url, *QUICK, "--log-level", "debug", *flags]
    with started(command, name) as process:
        yield process


def ticks(*processes: WorkerProcess) -> Counter[tuple[str, int]]:
    """How often each tick of each chore was done, by all of them."""
    return Counter((line["chore"], line["tick_ms"]) for process in processes for line in process.events("chore done"))


async def test_three_workers_do_each_chore_once_a_tick(redis_url: str, redis: Redis):
    """Every tick of every chore is done by exactly one; told to stop, they exit with 0 and leave arq's queue idle."""
    with ExitStack() as stack:
        names = ("m1", "m2", "m3")
        processes = [stack.enter_context(maintenance(redis_url, name=name)) for name in names]
        await until(lambda: {chore for chore, _ in ticks(*processes)} == CHORES and len(ticks(*processes)) > 12)
        assert [0, 0, 0] == [process.stop() for process in processes]
        done = ticks(*processes)
    assert {1} == set(done.values())
    book = await ChoreBook(PoolConnection(redis, "default")).read()
    assert all(f"{chore}.took_ms" in book for chore in CHORES)
    outside = [key async for key in redis.scan_iter("*") if not key.startswith(b"lp:{default}:")]
    assert [] == outside
    lasting = [key async for key in redis.scan_iter("*") if await redis.ttl(key) == -1]
    assert set(lasting) <= {b"lp:{default}:maintenance"}  # arq's queue: gone when it is empty


async def test_a_scheduled_job_is_answered_once(redis_url: str, redis: Redis):
    """Two maintenance workers, one killed: the job runs once on an ordinary worker, and its entry says so."""
    with ExitStack() as stack:
        stack.enter_context(fake_worker(redis_url))
        first, _ = [stack.enter_context(maintenance(redis_url, name=name)) for name in ("m1", "m2")]
        await alive(redis, "w1")
        digests = await add_adapters(redis, "a")
        async with Client(redis_url, agent="board") as pool:
            soon = datetime.now(UTC) + timedelta(seconds=2)
            await pool.schedules.add("a", "good morning", at=soon, name="once", max_new_tokens=5)
            first.process.kill()

            async def state() -> str | None:
                [entry] = await pool.schedules.list()
                return entry.last_state

            await until(lambda: _equals(state, "succeeded"))
            [entry] = await pool.schedules.list()
            result = await pool.get(entry.last_job).result(5)
            stats = await pool.agent_stats("board")
    assert expected("good morning", digests["a@1"], 5) == result.token_ids
    assert (1, None, 1) == (entry.runs, entry.next_ms, stats["submitted"])


async def _equals(ask, wanted) -> bool:
    return await ask() == wanted


async def test_an_outage_is_outlived():
    """Started before its server, it waits; cut off, it goes on; told to stop while the server is away, it stops."""
    port = free_port()
    with maintenance(f"redis://127.0.0.1:{port}/0") as process:
        await until(lambda: process.events("redis did not answer, trying again"))
        with running_server(port=port):
            await until(lambda: ticks(process))
            async with Client(f"redis://127.0.0.1:{port}/0") as pool:
                await pool._parts.connection._redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            before = len(ticks(process))
            await until(lambda: len(ticks(process)) > before + 2)
        seen = len(process.events("redis did not answer, trying again"))
        await until(lambda: len(process.events("redis did not answer, trying again")) > seen)
        assert 0 == process.stop()
        assert "Traceback" not in process.log()


async def test_a_connection_that_ends_while_keys_are_watched_is_an_outage(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    """redis-py tells that as a WatchError, from within arq; maintenance goes on."""
    running, runs = ArqWorker.async_run, Counter[str]()

    async def break_once(arq: ArqWorker) -> None:
        runs["begun"] += 1
        if runs["begun"] == 1:
            raise WatchError("A ConnectionError occurred on while watching one or more keys")
        await running(arq)

    monkeypatch.setattr(ArqWorker, "async_run", break_once)
    maintenance = Maintenance(redis_settings(redis_url), Periods())
    serving = asyncio.create_task(maintenance.run())
    await until(lambda: runs["begun"] == 2 or serving.done())
    maintenance.stop()
    await serving


async def test_a_wrong_password_is_final():
    """No amount of waiting helps: it is raised, and the command line says it in a line."""
    with running_server("--requirepass", "secret") as url:
        maintenance = Maintenance(redis_settings(url), Periods())
        with pytest.raises(RedisAuthFailed, match="refused user or password"):
            await maintenance.run()


async def test_the_cache_is_swept(redis_url: str, tmp_path: Path):
    """Each worker sweeps its own machine's folder, again and again."""
    cache = CacheFolder(tmp_path, 10)
    maintenance = Maintenance(redis_settings(redis_url), Periods(cache=0.01), cache)
    running = asyncio.create_task(maintenance.run())
    for name in (b"a", b"b"):
        entry = tmp_path / sha256(name).hexdigest()
        entry.mkdir()
        (entry / "weights").write_bytes(b"x" * 1000)
        _make_old(entry)
        await until(lambda entry=entry: not entry.exists())
    maintenance.stop()
    await asyncio.wait_for(running, 10)


def _make_old(path: Path) -> None:
    os.utime(path, (0, 0))


async def test_the_protocol_needs_no_maintenance(redis_url: str, redis: Redis):
    """While none lives: a killed worker's jobs are reaped and answered, delayed ones start, deadlines are kept."""
    digests = await add_adapters(redis, "a")
    with fake_worker(redis_url, "w1", {"step_s": 0.02}, lease_s=1.0) as w1, ExitStack() as stack:
        async with Client(redis_url) as pool:
            await alive(redis, "w1")
            lost = await pool.submit("a", "lost", max_new_tokens=60)
            late = await pool.submit("a", "late", max_new_tokens=5, delay=0.5)
            await until(lambda: _equals(lost.state, "running"))
            overdue = await pool.submit("a", "overdue", max_new_tokens=5, delay=600, deadline=0.5)
            w1.process.kill()
            stack.enter_context(fake_worker(redis_url, "w2", lease_s=1.0))
            assert expected("lost", digests["a@1"], 60) == (await lost.result(30)).token_ids
            assert expected("late", digests["a@1"], 5) == (await late.result(30)).token_ids
            with pytest.raises(JobExpired):
                await overdue.result(30)
    assert not await redis.exists("lp:{default}:chores", "lp:{default}:maintenance")


@pytest.mark.parametrize("flags", [("--adapter-cache-bytes", "much"), ("--schedule-every", "0"), ("--pool", "a b")])
def test_wrong_flags_are_told_in_a_line(flags: tuple[str, ...]):
    """Before anything is connected; exit code 2."""
    outcome = CliRunner().invoke(app, ["maintenance", *flags])
    assert (2, False) == (outcome.exit_code, "Traceback" in outcome.output)


def test_defaults_are_those_of_the_command_line():
    """They stand twice, in the flags and in Periods."""
    assert Periods(5, 60, 900, 60, 600) == Periods()
