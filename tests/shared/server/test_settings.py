from __future__ import annotations

import asyncio
import socket

import pytest
import redis as blocking_redis
from redis.asyncio import Connection, Redis

from lorapool.shared.errors import RedisAuthFailed, RedisFull, RedisUnreachable
from lorapool.shared.redaction import redact
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.server import Server
from lorapool.shared.server.settings import redis_settings
from tests.conftest import running_server
from tests.parts import membership_of
from tests.shared.conftest import Bench

SECRET = "s3cret-pa55"


@pytest.mark.parametrize(
    ("url", "redacted"),
    [
        (f"redis://:{SECRET}@host:6379/0", "redis://:***@host:6379/0"),
        (f"rediss://user:{SECRET}@host", "rediss://user:***@host"),
        (f"redis://host?password={SECRET}&db=1", "redis://host?password=***&db=1"),
        (f"cannot reach redis://u:{SECRET}@h:1 now", "cannot reach redis://u:***@h:1 now"),
        (f"redis://u:{SECRET}/@h@host", "redis://u:***@host"),
        ("redis://host:6379", "redis://host:6379"),
    ],
)
def test_passwords_are_taken_out(url: str, redacted: str) -> None:
    assert redacted == redact(url)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """LORAPOOL_* speaks where the caller does not; neither repr nor the redacted form shows the password."""
    monkeypatch.setenv("LORAPOOL_REDIS_URL", f"redis://:{SECRET}@host:1/2")
    monkeypatch.setenv("LORAPOOL_POOL", "prod")
    settings = redis_settings(pool="test")
    assert (settings.pool, settings.redacted_url) == ("test", "redis://:***@host:1/2")
    assert redis_settings().pool == "prod"
    assert SECRET not in repr(settings)


async def test_a_client_never_waits_for_ever() -> None:
    """Timeouts, keepalive and retries are set, whatever this redis-py's defaults are."""
    client = connect(redis_settings("redis://host"))
    options = client.connection_pool.connection_kwargs
    assert (8.0, 5.0, True) == tuple(
        options[n] for n in ("socket_timeout", "socket_connect_timeout", "socket_keepalive")
    )
    assert options["retry"] is not None
    blocking = Server(client).for_blocking()
    assert blocking.block_s(60.0) < 8.0
    assert blocking.block_s(1.0) == 1.0
    await blocking.aclose()
    await client.aclose()


async def test_a_silent_server_is_unreachable() -> None:
    """Nobody listens: a typed error that names the address and not the password."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    client = connect(redis_settings(f"redis://:{SECRET}@127.0.0.1:{port}/0"))
    with pytest.raises(RedisUnreachable, match=f"127.0.0.1:{port}") as caught:
        await Server(client).command("PING")
    assert isinstance(caught.value, ConnectionError)
    assert SECRET not in str(caught.value)
    await client.aclose()


async def test_a_wrong_password_is_told_apart() -> None:
    """A wrong or missing password is RedisAuthFailed, without the password in it."""
    with running_server("--requirepass", "right") as url:
        for given in (f"redis://:{SECRET}@{url.removeprefix('redis://')}", url):
            client = connect(redis_settings(given))
            with pytest.raises(RedisAuthFailed) as caught:
                await Server(client).command("PING")
            assert SECRET not in str(caught.value)
            await client.aclose()


async def test_a_full_server_refuses_new_work_and_settles_the_old(bench: Bench) -> None:
    """At maxmemory an enqueue is RedisFull and leaves nothing; running work still claims, settles and counts."""
    from lorapool.shared.queue.protocol import Settlement

    job_id = await bench.enqueue()
    await bench.redis.config_set("maxmemory", 1)
    with pytest.raises(RedisFull):
        await bench.enqueue()
    [claimed] = await bench.claim()
    assert claimed.job_id == job_id
    [settled] = await bench.queue.settle([Settlement(job_id, claimed.lease, "succeeded", text="x" * 1000)])
    assert settled.outcome == "settled"
    await bench.redis.config_set("maxmemory", 0)
    assert (await bench.queue.counters.of_adapter("cfo@1"))["submitted"] == 1


async def test_on_a_full_server_workers_live_and_look_for_work(bench: Bench) -> None:
    """At maxmemory a worker still beats, and comes back from waiting to claim what was accepted before."""
    members = membership_of(bench.redis)
    await bench.redis.config_set("maxmemory", 1)
    await members.beat("w1", {"device": "cpu"}, 5_000)
    assert ["w1"] == [beat["worker"] for beat in await members.all()]
    assert await bench.queue.wait_for_work("w1", 0.01)
    await bench.redis.config_set("maxmemory", 0)


async def test_a_crowd_waits_its_turn(redis: Redis) -> None:
    """Five hundred commands at once are served by the few connections allowed; blocking reads do not take these."""
    server = Server(redis)
    blocking = server.for_blocking()
    reads = [asyncio.create_task(blocking.read(f"s{i}", "0-0", 1.5)) for i in range(100)]
    replies = await asyncio.gather(*(server.command("INCR", "n") for _ in range(500)))
    assert set(range(1, 501)) == set(replies)
    assert not any(read.done() for read in reads)
    assert {0} == {len(read) for read in await asyncio.gather(*reads)}
    await blocking.aclose()


async def test_a_cancelled_call_leaves_no_reply_behind(redis: Redis) -> None:
    """Whoever comes after a call that was given up gets its own reply."""
    server = Server(redis)
    blocking = server.for_blocking()
    await redis.xadd("full", {"k": "v"})
    for _ in range(20):
        for call in (blocking.read("empty", "0-0", 5), server.command("GET", "full2"), server.command("DBSIZE")):
            given_up = asyncio.create_task(call)
            await asyncio.sleep(0.0005)
            given_up.cancel()
            await asyncio.gather(given_up, return_exceptions=True)
        assert [{"k": b"v"}] == [fields for _, fields in await blocking.read("full", "0-0", 5)]
        assert await server.command("ECHO", "mine") == b"mine"
    await blocking.aclose()


async def test_a_dropped_connection_is_not_noticed(redis: Redis) -> None:
    """The server drops all connections, or restarts: the next command connects anew."""
    server = Server(redis)
    assert await server.command("SET", "k", "v")
    for _ in range(3):
        with blocking_redis.Redis.from_url(f"redis://{_address(redis)}") as other:
            other.client_kill_filter(_type="normal", skipme=True)
        assert await server.command("GET", "k") == b"v"
        assert await server.pipeline([("GET", "k"), ("ECHO", "x")]) == [b"v", b"x"]


def _address(redis: Redis) -> str:
    options = redis.connection_pool.connection_kwargs
    return f"{options['host']}:{options['port']}"


@pytest.mark.parametrize("command", [("XINFO STREAM", "k"), ("EVALSHA", "sha", 1, b"\xff", "ü", 2.5, ""), (b"PING",)])
def test_commands_are_packed_as_ever(command: tuple[str | bytes | float, ...]) -> None:
    """What hiredis packs is, byte for byte, what redis-py would have sent."""
    ours = connect(redis_settings("redis://localhost")).connection_pool.make_connection()
    assert b"".join(Connection().pack_command(*command)) == b"".join(ours.pack_command(*command))


async def test_replies_are_bytes(redis: Redis) -> None:
    await redis.set("k", b"\xff")
    assert await redis.get("k") == b"\xff"
