"""A worker that cannot see the adapters' folder: its own trouble, which fails no job and refuses no adapter."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from lorapool.producer.client.handle import JobHandle
from lorapool.shared.errors import AdapterNotReady
from tests.containment import LONG
from tests.containment.conftest import Contain
from tests.containment.files import AdapterFolder
from tests.containment.pool import ContainedPool
from tests.fleet import until


async def test_one_of_two_workers_lacks_the_mount(contained: Contain, tmp_path: Path) -> None:
    """Eight sound new adapters become ready, and sixty jobs of theirs succeed, all on the other worker, at once though
    the one met them first; what that cannot reach is told in its heartbeat."""
    folder = AdapterFolder.at(tmp_path)
    paths = {f"new{number}": folder.add(f"new{number}") for number in range(8)}
    async with contained(workers=0) as pool:
        pool.start("w1", folder.model)
        pool.start("w2", folder.model, **folder.mounted)
        await pool.ready("w1", "w2")
        await pool.calm()
        async with pool.bystanders() as bystanders:
            register = pool.client.adapters.register
            records = await asyncio.gather(*(register(name, path, timeout=90) for name, path in paths.items()))
            assert ["ready"] * 8 == [record.status for record in records]
            await stopped(pool, "w1")  # what it found while it judged is forgotten
            pool.start("w1", folder.model)
            await pool.ready("w1")
            await stopped(pool, "w2")
            jobs = [{"adapter": f"new{n % 8}", "prompt": f"question {n}", "max_new_tokens": 4} for n in range(60)]
            handles = await pool.client.submit_many(jobs)
            await until(lambda: not_here(pool, "w1", paths))
            pool.start("w2", folder.model, **folder.mounted)
            results = [await handle.result(60) for handle in handles if isinstance(handle, JobHandle)]
            assert 60 == len(results)
            assert {"w2"} == {result.worker for result in results}
            assert {1} == {result.attempts for result in results}
            await bystanders.served(8)
        bystanders.judge(factor=3.0, slack_s=1.0)
        assert await not_here(pool, "w2", ())


async def stopped(pool: ContainedPool, name: str) -> None:
    assert 0 == await asyncio.to_thread(pool.workers[name].stop)
    await pool.left(pool.workers[name], 0)


async def not_here(pool: ContainedPool, worker: str, names: Iterable[str]) -> bool:
    """Whether just these adapters are what that worker says that it cannot reach."""
    told = {beat["worker"]: beat.get("not_here", "").split() for beat in await pool.client.workers()}
    return sorted(f"{name}@1.0.0" for name in names) == sorted(told[worker])


async def test_no_worker_can_reach_it(contained: Contain, tmp_path: Path) -> None:
    """A new version stays pending and says why; jobs of an old one wait, explained, and run once it is
    back."""
    folder = AdapterFolder.at(tmp_path)
    old, new = folder.add("old"), folder.add("new")
    async with contained(workers=0, **folder.mounted) as pool:
        pool.start("w1", folder.model)
        await pool.ready("w1")
        await pool.client.adapters.register("old", old, timeout=90)
        await pool.calm()
        away = tmp_path / "away"
        old.rename(away)
        async with pool.bystanders() as bystanders:
            handle = await pool.client.submit("old", "Hello", max_new_tokens=3)

            async def explained() -> bool:
                return (await handle.explain()).reason == "not_here"

            await until(explained)
            digest = (await pool.client.adapters.get("old")).digest
            with pytest.raises(AdapterNotReady, match=r"by w1: .*no such folder.*stays pending"):
                await pool.client.adapters.register("new", new.with_name("gone"), digest=digest)
            assert "pending" == (await pool.client.adapters.get("new")).status
            await bystanders.served(8)
        bystanders.judge(factor=3.0, slack_s=1.0)
        if LONG:  # it is tried again after half a minute
            away.rename(old)
            assert 3 == (await handle.result(90)).usage.completion_tokens
        else:
            await handle.cancel()
