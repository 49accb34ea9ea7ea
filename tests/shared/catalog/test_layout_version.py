"""A pool whose keys are another layout's is told apart before anything is read or written."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from lorapool.producer.client.client import Client
from lorapool.shared.catalog.catalog import PoolConfig
from lorapool.shared.errors import PoolMismatch
from lorapool.shared.server.settings import redis_settings
from lorapool.worker.maintenance.maintenance import Maintenance, Periods
from tests.parts import catalog_of

CONFIG = PoolConfig(base_model="smol")
OLD = r"pool 'acme' has keys of layout 1, this release has layout 2.*use a pool of another name, or delete the keys"


async def as_left_by_the_first_release(redis: Redis, how: str) -> None:
    if how == "config":
        await redis.hset("lp:{acme}:config", mapping={"base_model": "smol", "layout": 1})
    elif how == "config without a layout":
        await redis.hset("lp:{acme}:config", "base_model", "smol")
    else:
        await redis.hset("lp:{acme.0}:waiting", mapping={"*": 1, "_base": 1})


@pytest.mark.parametrize("how", ["config", "config without a layout", "jobs of clients that came before any worker"])
async def test_a_pool_of_the_old_layout(redis: Redis, redis_url: str, how: str) -> None:
    """Worker, client and maintenance each hear it with the remedy; nothing is written beside the old keys."""
    await as_left_by_the_first_release(redis, how)
    before = await redis.dbsize()
    with pytest.raises(PoolMismatch, match=OLD):
        await catalog_of(redis, "acme").create_or_check_config(CONFIG)
    with pytest.raises(PoolMismatch, match=OLD):
        async with Client(redis_url, pool="acme"):
            pass
    unentered = Client(redis_url, pool="acme")
    with pytest.raises(PoolMismatch, match=OLD):
        await unentered.submit(None, "hello")
    await unentered.close()
    with pytest.raises(PoolMismatch, match=OLD):
        await Maintenance(redis_settings(redis_url, "acme"), Periods()).run()
    assert before == await redis.dbsize()


async def test_a_name_that_an_old_partition_has(redis: Redis) -> None:
    """A new pool does not begin among the keys of an old one's partition; one that is there already goes on."""
    await as_left_by_the_first_release(redis, "jobs")
    with pytest.raises(PoolMismatch, match=r"'acme\.0' has keys of layout 1"):
        await catalog_of(redis, "acme.0").create_or_check_config(CONFIG)
    await redis.delete("lp:{acme.0}:waiting")
    assert CONFIG == await catalog_of(redis, "acme.0").create_or_check_config(CONFIG)
    assert CONFIG == await catalog_of(redis, "acme").create_or_check_config(CONFIG)


async def test_a_newer_layout_asks_for_a_newer_release(redis: Redis) -> None:
    await redis.hset("lp:{acme}:config", mapping={"base_model": "smol", "layout": 3})
    with pytest.raises(PoolMismatch, match="layout 3, this release has layout 2: update lorapool here"):
        await catalog_of(redis, "acme").layout.check()


async def test_what_is_known_is_not_asked_again(redis: Redis) -> None:
    """One command in a client's life; one a second while the pool has no config yet."""
    catalog = catalog_of(redis, "acme")
    await catalog.layout.check()
    await redis.config_resetstat()
    await catalog.layout.check()
    assert not {"cmdstat_hmget", "cmdstat_exists"} & (await redis.info("commandstats")).keys()
    await catalog.create_or_check_config(CONFIG)
    fresh = catalog_of(redis, "acme")
    await redis.config_resetstat()
    for _ in range(10):
        await fresh.layout.check()
    assert 1 == (await redis.info("commandstats"))["cmdstat_hmget"]["calls"]


async def test_a_user_of_this_pools_keys_alone_is_let_in(redis: Redis, redis_url: str) -> None:
    """Who may not look where the old layout was is not stopped by that."""
    await redis.acl_setuser("agent", enabled=True, passwords=["+pw"], keys=["lp:{acme}:*"], commands=["+@all"])
    async with Client(redis_url.replace("//", "//agent:pw@"), pool="acme"):
        pass
    await redis.acl_deluser("agent")
