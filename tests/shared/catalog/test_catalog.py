from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis

from lorapool.shared.catalog.catalog import AdapterRecord, Catalog, PoolConfig
from lorapool.shared.errors import AdapterConflict, InvalidRequest, PoolMismatch, UnknownAdapter
from tests.parts import Queue, catalog_of
from tests.shared.conftest import job

CONFIG = PoolConfig(base_model="smol", revision="main", digest="b" * 64, dtype="float32")


@pytest.fixture
def catalog(redis: Redis) -> Catalog:
    return catalog_of(redis, "test")


def record(version: str = "1", digest: str = "a" * 64, **fields: Any) -> AdapterRecord:
    return AdapterRecord(id="cfo", version=version, digest=digest, uri="file:///adapters/cfo", **fields)


async def test_a_pool_has_one_base_model(catalog: Catalog) -> None:
    """The first worker writes the config; one that differs is refused, and told both values."""
    assert await catalog.config() is None
    assert await catalog.create_or_check_config(CONFIG) == CONFIG
    assert await catalog.create_or_check_config(CONFIG) == CONFIG
    with pytest.raises(PoolMismatch, match=r"digest 'b{64}'.*'c{64}'"):
        await catalog.create_or_check_config(CONFIG.model_copy(update={"digest": "c" * 64}))
    assert await catalog.config() == CONFIG


async def test_a_version_is_pending_until_decided(catalog: Catalog) -> None:
    made = await catalog.register(record(metadata={"team": "finance"}))
    assert ("pending", "cfo@1", {"team": "finance"}) == (made.status, made.ref, made.metadata)
    assert [made] == await catalog.pending()
    ready = await catalog.decide("cfo@1", "ready", facts={"rank": 4})
    assert ("ready", 4) == (ready.status, ready.rank)
    assert await catalog.pending() == []
    assert [ready] == await catalog.list()


async def test_registering_again_is_the_same_version(catalog: Catalog) -> None:
    """The same content is the same version, ready or not; other content under that name is refused."""
    await catalog.register(record())
    await catalog.decide("cfo@1", "ready")
    assert (await catalog.register(record())).status == "ready"
    with pytest.raises(AdapterConflict, match="immutable"):
        await catalog.register(record(digest="f" * 64))
    assert (await catalog.get("cfo@1")).digest == "a" * 64


async def test_the_first_verdict_stands(catalog: Catalog) -> None:
    await catalog.register(record())
    refused = await catalog.decide("cfo@1", "refused", "rank 512 exceeds 64")
    assert ("refused", "rank 512 exceeds 64") == (refused.status, refused.reason)
    assert (await catalog.decide("cfo@1", "ready")).status == "refused"


async def test_a_refused_version_may_be_tried_again(catalog: Catalog) -> None:
    """The same bytes may be reachable by now: registering again asks for a new verdict."""
    await catalog.register(record())
    await catalog.decide("cfo@1", "refused", "no such folder")
    again = await catalog.register(record())
    assert ("pending", "") == (again.status, again.reason)
    assert (await catalog.decide("cfo@1", "ready")).status == "ready"


async def test_only_a_ready_adapter_takes_jobs(catalog: Catalog, redis: Redis) -> None:
    queue = Queue(redis, "test")
    await catalog.register(record())
    with pytest.raises(UnknownAdapter):
        await queue.enqueue(job())
    await catalog.decide("cfo@1", "ready")
    assert (await queue.enqueue(job())).created
    await queue.close()


async def test_how_a_name_is_looked_up(catalog: Catalog) -> None:
    """Exact ref, then alias in any case, then id: its active version; None is the base model."""
    await catalog.register(record("1", aliases=("CFO", "Money")))
    await catalog.decide("cfo@1", "ready")
    await catalog.register(record("2", digest="d" * 64))
    assert (await catalog.resolve("cfo")).ref == "cfo@1"
    await catalog.decide("cfo@2", "ready")
    assert (await catalog.resolve("money")).ref == "cfo@1"
    assert (await catalog.resolve("MONEY")).ref == "cfo@1"
    assert (await catalog.resolve("cfo@1")).ref == "cfo@1"
    assert (await catalog.resolve(None)).ref == "_base"
    await catalog.alias("money", "cfo@2")
    assert (await catalog.resolve("Money")).ref == "cfo@2"
    assert await catalog.aliases() == {"cfo": "cfo@1", "money": "cfo@2"}


async def test_an_id_means_its_newest_ready_version(catalog: Catalog) -> None:
    for version, digest in (("1", "a" * 64), ("2", "d" * 64)):
        await catalog.register(record(version, digest))
        await catalog.decide(f"cfo@{version}", "ready")
    assert (await catalog.resolve("cfo")).ref == "cfo@2"


async def test_an_alias_moves_only_to_what_is_ready(catalog: Catalog) -> None:
    """Registering a new version with the same alias does not send jobs to it before a worker approves."""
    await catalog.register(record("1", aliases=("boss",)))
    await catalog.decide("cfo@1", "ready")
    await catalog.register(record("2", "d" * 64, aliases=("boss",)))
    assert (await catalog.resolve("boss")).ref == "cfo@1"
    await catalog.decide("cfo@2", "ready")
    assert (await catalog.resolve("boss")).ref == "cfo@2"


@pytest.mark.parametrize("name", ["nobody", "cfo@9"])
async def test_an_unknown_name(catalog: Catalog, name: str) -> None:
    with pytest.raises(UnknownAdapter, match=name):
        await catalog.resolve(name)


@pytest.mark.parametrize("name", ["", "../x", "a b", "cfo@", "@1", "a@b@c", "x}:y"])
async def test_hostile_names_reach_no_key(catalog: Catalog, name: str) -> None:
    with pytest.raises(InvalidRequest):
        await catalog.resolve(name)
    with pytest.raises(InvalidRequest):
        await catalog.register(AdapterRecord(id=name, version="1", digest="", uri=""))


async def test_a_live_worker_is_poked(catalog: Catalog, redis: Redis) -> None:
    """Registering tells a worker at once, through its control stream; registering the same again does not."""
    queue = Queue(redis, "test")
    await queue.members.beat("w1", {"device": "cpu"}, 5_000)
    for _ in range(2):
        await catalog.register(record())
    assert [{"op": "validate", "ref": "cfo@1"}] == [fields for _, fields in await queue.control("w1", "0-0", 0)]
    await queue.close()
