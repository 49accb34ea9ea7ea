"""An adapter version leaves service: closed, drained, removed; and its jobs end on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lorapool.producer import AdapterClosed, AdapterInUse, Client, InvalidRequest, JobHandle, UnknownAdapter
from tests.fleet import until
from tests.producer.canned_worker import CannedWorker

Make = Callable[..., Path]


@pytest.fixture
async def pool(client: Client, worker: CannedWorker, make_adapter: Make) -> Client:
    """cfo@1.0.0, served by a worker."""
    await client.adapters.register("cfo", make_adapter())
    return client


async def test_an_idle_version_is_removed_at_once(pool: Client) -> None:
    """No name leads to it, it is not listed, and it takes no job."""
    assert "removed" == (await pool.adapters.remove("cfo@1.0.0")).state
    assert [] == await pool.adapters.list()
    assert ["removed"] == [record.status for record in await pool.adapters.list(removed=True)]
    with pytest.raises(UnknownAdapter):
        await pool.submit("cfo", "hello")
    with pytest.raises(AdapterClosed, match="was removed"):
        await pool.submit("cfo@1.0.0", "hello")


async def test_another_clients_memory_of_it_takes_no_job(pool: Client, redis_url: str, pool_name: str) -> None:
    """A name resolved a moment ago is refused by the queue itself."""
    async with Client(redis_url, pool=pool_name) as other:
        await other.adapters.resolve("cfo")
        await pool.adapters.remove("cfo@1.0.0")
        with pytest.raises(AdapterClosed, match=r"cfo@1\.0\.0 is removed"):
            await other.submit("cfo", "hello")


async def test_a_version_with_jobs_is_not_removed(pool: Client) -> None:
    """Delayed, waiting and running ones are counted in the refusal, and nothing has changed."""
    running, later = await pool.submit("cfo", "hang"), await pool.submit("cfo", "later", delay=60)
    await until(lambda: _runs(running))
    with pytest.raises(AdapterInUse, match="1 waiting and 1 running") as caught:
        await pool.adapters.remove("cfo@1.0.0")
    assert (1, 1) == (caught.value.waiting, caught.value.running)
    assert "hello" in (await (await pool.submit("cfo", "hello")).result(timeout=10)).text
    await later.cancel()


async def _runs(job: JobHandle) -> bool:
    return await job.state() == "running"


async def test_forced_its_jobs_end_on_it(pool: Client, worker: CannedWorker) -> None:
    """Closed at once for new jobs; those running and waiting are answered; then it is removed."""
    worker.word_s = 0.05
    jobs = [await pool.submit("cfo", f"job {n}") for n in range(3)]
    delayed = await pool.submit("cfo", "delayed", delay=0.3)
    assert "closed" == (await pool.adapters.remove("cfo@1.0.0", force=True, timeout=0)).state
    assert "removed" == (await pool.adapters.remove("cfo@1.0.0", timeout=20)).state
    for job in (*jobs, delayed):
        assert "cfo@1.0.0" == (await job.result(timeout=10)).adapter


async def test_the_same_content_comes_back(pool: Client, tmp_path: Path) -> None:
    """Registered again it is validated again, and serves."""
    await pool.adapters.remove("cfo@1.0.0")
    assert "ready" == (await pool.adapters.register("cfo", tmp_path / "cfo")).status
    assert "hello" in (await (await pool.submit("cfo", "hello")).result(timeout=10)).text


async def test_an_aliased_version_is_not_removed(pool: Client) -> None:
    """Nor closed: the alias goes on serving."""
    await pool.adapters.alias("boss", "cfo")
    with pytest.raises(AdapterInUse, match="boss"):
        await pool.adapters.remove("cfo@1.0.0", force=True)
    assert "hello" in (await (await pool.submit("boss", "hello")).result(timeout=10)).text
    assert "cfo@1.0.0" == await pool.adapters.unalias("boss")
    assert "removed" == (await pool.adapters.remove("cfo@1.0.0")).state


@pytest.mark.parametrize("name", ["cfo", "_base", "cfo@", "cfo@9"])
async def test_only_an_exact_known_version_is_removed(pool: Client, name: str) -> None:
    """An id or an alias might mean another version tomorrow."""
    with pytest.raises(UnknownAdapter if name in {"cfo@9", "cfo@"} else InvalidRequest):
        await pool.adapters.remove(name)
