"""Two workers with one name: the second is refused, the first does not notice; a dead one's name is free at once."""

from __future__ import annotations

import signal
import socket

from tests.containment.conftest import Contain
from tests.fleet import fake_worker, until


async def test_a_second_worker_of_that_name(contained: Contain) -> None:
    """It leaves by itself, naming both; the others' jobs go on as if it had not been there."""
    async with contained(workers=2) as pool:
        await pool.calm()
        async with pool.bystanders() as bystanders:
            with fake_worker(pool.url, "w1", lease_s=1.0) as second:
                assert second.wait(20) != 0
                told = second.log()
            await bystanders.served(40)
        bystanders.judge(factor=2.0)
        first = pool.workers["w1"]
        assert f"'w1' belongs to process {first.process.pid} on host {socket.gethostname()}" in told
        assert f"this is process {second.process.pid} on host {socket.gethostname()}" in told


async def test_the_name_of_a_killed_worker(contained: Contain) -> None:
    """Restarted under its name on the same machine it serves again long before its old heartbeat has run out."""
    async with contained(workers=2, beat_s=20.0) as pool:
        for _ in range(2):
            pool.workers["w1"].signal(signal.SIGKILL)
            await pool.left(pool.workers["w1"], -9)
            again = pool.start("w1")
            await until(lambda again=again: again.events("ready"), 20)


async def test_a_frozen_worker_whose_name_was_taken_leaves(contained: Contain) -> None:
    """Back after its heartbeat ended, it hears who has its name and goes; its successor keeps the name and serves."""
    async with contained(workers=2, beat_s=0.2) as pool:
        frozen = pool.workers["w1"]
        frozen.signal(signal.SIGSTOP)
        with fake_worker(pool.url, "w1", lease_s=1.0, beat_s=0.2) as successor:
            await until(lambda: successor.events("ready"), 20)
            async with pool.bystanders() as bystanders:
                frozen.signal(signal.SIGCONT)
                await pool.left(frozen, 1)
                await bystanders.served(20)
            assert [] == bystanders.sample.wrong()
            assert f"taken by process {successor.process.pid} on host" in frozen.log()
            beat = next(beat for beat in await pool.client.workers() if beat["worker"] == "w1")
            assert str(successor.process.pid) == beat["pid"]
            assert successor.stop() == 0
