"""A worker's name: whose it is, when it is free again, and what stands under it while the model loads."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from lorapool.shared.errors import WorkerIdTaken
from lorapool.worker.loop.presence import Presence
from tests.fleet import until
from tests.parts import membership_of

BEAT_S = 0.2
ELSEWHERE = {"host": "elsewhere", "pid": 1}


def presence(redis: Redis, **identity: Any) -> Presence:
    return Presence(membership_of(redis, "test"), "w1", every_s=BEAT_S, identity=identity)


def a_process() -> subprocess.Popen[bytes]:
    """One that ends by itself at once."""
    return subprocess.Popen([sys.executable, "-c", ""])


async def record(redis: Redis) -> dict[str, str]:
    [found] = await membership_of(redis, "test").all()
    return found


async def test_a_live_workers_name_is_refused(redis: Redis) -> None:
    """Both processes and hosts are named; the first does not notice."""
    first = presence(redis, **ELSEWHERE)
    await first.join()
    async with first.loading():
        with pytest.raises(WorkerIdTaken, match=r"'w1' belongs to process 1 on host elsewhere.* process \d+ on"):
            await presence(redis).join()
    assert "elsewhere" == (await record(redis))["host"]


async def test_a_dead_workers_name_is_free_once_its_heartbeat_has_ended(redis: Redis) -> None:
    """Of a process on another host nobody can know more: three beats at most."""
    await presence(redis, **ELSEWHERE).join()
    began = time.monotonic()
    await presence(redis).join()
    assert 0.5 * BEAT_S < time.monotonic() - began < 3 * BEAT_S + 20
    assert "elsewhere" != (await record(redis))["host"]


async def test_a_record_that_outlives_its_beats_holds_no_name(redis: Redis) -> None:
    """As when the server's clock was set back: what nobody renews for three beats is nobody's."""
    await presence(redis, **ELSEWHERE).join()
    await redis.pexpire("lp:{test}:worker:w1", 3_600_000)
    async with asyncio.timeout(10):
        await presence(redis).join()


async def test_a_name_is_free_at_once_when_its_process_is_known_to_be_gone(redis: Redis) -> None:
    """On the same host, in the same namespace of processes: also when nobody has asked for its status yet."""
    dead, zombie = a_process(), a_process()
    dead.wait()
    await until(lambda: _is_zombie(zombie.pid))
    for gone in (dead, zombie):
        former = Presence(membership_of(redis, "test"), "w1", every_s=60, identity={"pid": gone.pid})
        await former.join()
        async with asyncio.timeout(5):
            await presence(redis).join()
        await membership_of(redis, "test").leave("w1")
    zombie.wait()


def _is_zombie(pid: int) -> bool:
    return ") Z " in Path(f"/proc/{pid}/stat").read_text()


async def test_a_pid_of_another_namespace_says_nothing(redis: Redis) -> None:
    """Two containers with one host name: the process is not seen, and yet alive."""
    dead = a_process()
    dead.wait()
    other = presence(redis, pid=dead.pid, place="pid:[1]")
    await other.join()
    async with other.loading():
        with pytest.raises(WorkerIdTaken):
            await presence(redis).join()


async def test_who_lost_the_name_hears_it(redis: Redis) -> None:
    """Frozen for longer than its heartbeat lived: its next beat says who has its name, its leaving is harmless."""
    frozen, successor = presence(redis, **ELSEWHERE), presence(redis)
    await frozen.join()
    await successor.join()
    with pytest.raises(WorkerIdTaken, match="silent"):
        await frozen.beat({"state": "running"})
    await frozen.leave()
    assert "elsewhere" != (await record(redis))["host"]


async def test_while_the_model_loads_the_worker_is_there(redis: Redis) -> None:
    """With how far it is, beat by beat; a beat of work after it says nothing of that any more."""
    worker = presence(redis)
    await worker.join()
    async with worker.loading() as tell:
        await asyncio.to_thread(tell, "weights 40 %")
        assert await until(lambda: _says(redis, "weights 40 %"))
        await asyncio.sleep(4 * BEAT_S)  # longer than one beat lives
        assert "loading" == (await record(redis))["state"]
    await worker.beat({"state": "running"})
    assert ("running", "") == ((await record(redis))["state"], (await record(redis))["progress"])
    await worker.leave()


async def test_in_a_large_fleet_numbers_are_told_now_and_then(redis: Redis) -> None:
    """State and what ails a worker with each beat, the rest every fifth; the pool's sums count all of it, once."""
    worker, totals = presence(redis), ("steps",)
    worker.stride = 5
    await worker.join()
    for beat in range(1, 14):
        await worker.beat({"state": "running", "ails": f"a{beat}", "steps": beat, "held": beat}, totals)
        told = await record(redis)
        last = 5 * ((beat - 1) // 5) + 1
        assert (f"a{beat}", str(last), str(last)) == (told["ails"], told["steps"], told["held"])
    assert 11 == (await membership_of(redis, "test").usage())["steps"]


async def test_a_forgotten_record_is_told_whole(redis: Redis) -> None:
    """After a silence, or when the server lost it: what has not changed since is told as well."""
    worker, fields = presence(redis), {"state": "running", "device": "cpu", "steps": 3}
    await worker.join()
    worker.stride = 5
    for _ in range(3):
        await worker.beat(fields, ("steps",))
        await redis.delete("lp:{test}:worker:w1")
    await worker.beat(fields, ("steps",))
    assert {"device": "cpu", "steps": "3", "state": "running"}.items() <= (await record(redis)).items()
    assert 3 == (await membership_of(redis, "test").usage())["steps"]
    assert ["w1"] == await membership_of(redis, "test").serving()


async def _says(redis: Redis, progress: str) -> bool:
    return (await record(redis))["progress"] == progress
