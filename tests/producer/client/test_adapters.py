"""Adapters: registering, validating, naming; without torch on this side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from lorapool.producer import (
    AdapterConflict,
    AdapterNotReady,
    AdapterRefused,
    CheckpointError,
    Client,
    InvalidRequest,
    NoWorker,
    UnknownAdapter,
)
from lorapool.producer.client import adapters
from lorapool.shared.digest import adapter_digest
from tests.producer.canned_worker import CannedWorker, serving

Make = Callable[..., Path]


async def test_a_registered_adapter_serves_under_every_name(
    client: Client, worker: CannedWorker, make_adapter: Make
) -> None:
    """Exact ref, alias in any case, and id lead to the same version; the record tells what it is."""
    folder = make_adapter()
    record = await client.adapters.register("cfo", folder, version="2.1", aliases=["CFO"], metadata={"owner": "board"})
    assert (record.ref, record.status, record.digest) == ("cfo@2.1", "ready", adapter_digest(folder))
    assert (record.rank, record.base_model, record.uri) == (4, "tiny", folder.as_uri())
    for name in ("cfo@2.1", "Cfo", "CFO", "cfo"):
        result = await (await client.submit(name, "hello")).result(timeout=10)
        assert result.adapter == "cfo@2.1"
    assert [listed.ref for listed in await client.adapters.list()] == ["cfo@2.1"]
    assert (await client.adapters.get("CFO")).aliases == ("cfo",)


async def test_the_same_files_again_are_the_same_version(
    client: Client, worker: CannedWorker, make_adapter: Make
) -> None:
    """Registering is safe to repeat."""
    folder = make_adapter()
    first = await client.adapters.register("cfo", folder)
    assert first == await client.adapters.register("cfo", folder)


async def test_other_files_under_the_same_version_are_a_conflict(
    client: Client, worker: CannedWorker, make_adapter: Make
) -> None:
    """Versions are immutable; the first stays."""
    first = await client.adapters.register("cfo", make_adapter())
    with pytest.raises(AdapterConflict, match=r"cfo@1\.0\.0"):
        await client.adapters.register("cfo", make_adapter(salt="x"))
    assert await client.adapters.get("cfo") == first


async def test_a_refused_adapter_says_why_everywhere(client: Client, worker: CannedWorker, make_adapter: Make) -> None:
    """At registration and at submission, with the worker's reason."""
    with pytest.raises(AdapterRefused, match="no tensor of it applies") as caught:
        await client.adapters.register("bad", make_adapter("bad"))
    assert caught.value.reason == "no tensor of it applies"
    with pytest.raises(AdapterRefused, match="no tensor of it applies"):
        await client.submit("bad@1.0.0", "hello")


async def test_without_a_worker_registering_says_so_and_keeps_it_pending(
    client: Client, make_adapter: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NoWorker, soon; a job for it is refused as not ready; nothing of it is lost."""
    monkeypatch.setattr(adapters, "NO_WORKER_AFTER_S", 0.1)
    with pytest.raises(NoWorker, match="lorapool-worker"):
        await client.adapters.register("cfo", make_adapter())
    with pytest.raises(AdapterNotReady):
        await client.submit("cfo@1.0.0", "hello")
    assert [record.status for record in await client.adapters.list()] == ["pending"]


async def test_a_busy_worker_means_not_ready_after_the_timeout(client: Client, make_adapter: Make) -> None:
    """Somebody is alive, but has not decided in time."""
    await client._members.beat("busy", {"device": "cpu"}, 60_000)
    with pytest.raises(AdapterNotReady, match="not validated after"):
        await client.adapters.register("cfo", make_adapter(), timeout=0.1)


async def test_a_worker_that_still_loads_is_waited_for(
    client: Client, make_adapter: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is somebody: register waits until it has loaded and decided, or says after the timeout that it still loads."""
    monkeypatch.setattr(adapters, "NO_WORKER_AFTER_S", 0.05)
    members, folder = client._members, make_adapter()
    await members.join("slow", {"state": "loading", "progress": "weights 40 %"}, 60_000, boot="1")
    with pytest.raises(AdapterNotReady, match=r"slow is loading its model \(weights 40 %\)"):
        await client.adapters.register("cfo", folder, timeout=0.3)
    waiting = asyncio.create_task(client.adapters.register("cfo", folder))
    await asyncio.sleep(0.2)
    await members.beat("slow", {"state": "running"}, 60_000, boot="1")
    await client._catalog.decide("cfo@1.0.0", "ready")
    assert "ready" == (await waiting).status


async def test_registering_without_waiting_returns_the_pending_record(client: Client, make_adapter: Make) -> None:
    """wait=False asks nobody."""
    assert (await client.adapters.register("cfo", make_adapter(), wait=False)).status == "pending"


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda folder: (folder / "adapter_config.json").unlink(), "has no adapter_config.json"),
        (lambda folder: (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin"), "pickle"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"\xff" * 64), "not a safetensors file"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "not JSON"),
    ],
)
async def test_what_no_worker_could_serve_is_refused_here(
    client: Client, make_adapter: Make, spoil: Callable[[Path], object], expected: str
) -> None:
    """Before anything is sent, naming the file."""
    folder = make_adapter()
    spoil(folder)
    with pytest.raises(CheckpointError, match=expected):
        await client.adapters.register("cfo", folder)
    assert await client.adapters.list() == []


async def test_a_folder_only_workers_see_needs_its_digest(client: Client) -> None:
    """Without one the client cannot say what it registers."""
    with pytest.raises(InvalidRequest, match="digest"):
        await client.adapters.register("cfo", "nfs://server/cfo")
    record = await client.adapters.register("cfo", "s3://bucket/cfo", digest="d" * 64, wait=False)
    assert (record.uri, record.digest) == ("s3://bucket/cfo", "d" * 64)


@pytest.mark.parametrize(("name", "version"), [("a/b", "1"), ("cfo", "1 2"), ("_base", "1"), ("", "1")])
async def test_names_that_cannot_be_keys_are_refused(
    client: Client, make_adapter: Make, name: str, version: str
) -> None:
    """InvalidRequest, before the files are read."""
    with pytest.raises(InvalidRequest, match="not a valid name"):
        await client.adapters.register(name, make_adapter(), version=version)


async def test_an_unknown_name_gets_the_nearest_ones(client: Client, worker: CannedWorker, make_adapter: Make) -> None:
    """Or the news that there are none at all."""
    with pytest.raises(UnknownAdapter, match="no adapters yet"):
        await client.submit("cfo", "hello")
    await client.adapters.register("cfo", make_adapter())
    with pytest.raises(UnknownAdapter, match="did you mean cfo"):
        await client.submit("cf0", "hello")
    with pytest.raises(UnknownAdapter, match="did you mean cfo"):
        await client.submit("CFOO", "hello")


async def test_a_moved_alias_is_seen_by_another_client_within_a_second(
    redis_url: str, pool_name: str, client: Client, worker: CannedWorker, make_adapter: Make
) -> None:
    """New jobs follow it; the one who moved it at once."""
    await client.adapters.register("cfo", make_adapter(), version="1", aliases=["money"])
    await client.adapters.register("cfo", make_adapter(salt="x"), version="2")
    async with Client(redis_url, pool=pool_name) as other:
        assert await other.adapters.resolve("money") == "cfo@1"
        assert (await client.adapters.alias("money", "cfo@2")).aliases == ("money",)
        assert await client.adapters.resolve("money") == "cfo@2"
        await asyncio.sleep(1.05)
        assert await other.adapters.resolve("money") == "cfo@2"


async def test_workers_and_stats_are_told(redis_url: str, pool_name: str, client: Client, make_adapter: Make) -> None:
    """A live worker is listed; counters are those of the adapter and of the agent."""
    async with serving(redis_url, pool_name):
        await client.adapters.register("cfo", make_adapter())
        await (await client.submit("cfo", "hello", agent="board-7")).result(timeout=10)
        assert [worker["worker"] for worker in await client.workers()] == ["canned"]
    stats = await client.stats("cfo")
    assert (stats["submitted"], stats["succeeded"], stats["completion_tokens"]) == (1, 1, 3)
    assert await client.agent_stats("board-7") == stats
    assert await client.all_stats() == {"cfo@1.0.0": stats}
