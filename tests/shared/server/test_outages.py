"""What a server says while it is there and cannot do the work: an outage with its reason, whatever way it is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from lorapool.shared.errors import RedisFull, RedisUnreachable
from lorapool.shared.server.failures import translated
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.redis_retry import retry
from lorapool.shared.server.server import Server
from lorapool.shared.server.settings import redis_settings
from tests.conftest import running_server
from tests.fleet import until
from tests.parts import Queue, membership_of
from tests.shared.conftest import job

PARSED: Callable[[str], Exception]
try:
    from redis._parsers.base import BaseParser

    PARSED = BaseParser.parse_error
except ImportError:  # another release of redis-py keeps it elsewhere
    PARSED = ResponseError

SAID = {
    "MISCONF": "MISCONF Valkey is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "NOREPLICAS": "NOREPLICAS Not enough good replicas to write.",
    "BUSY": "BUSY Valkey is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "LOADING": "LOADING Valkey is loading the dataset in memory",
    "MASTERDOWN": "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "READONLY": "READONLY You can't write against a read only replica.",
    "CLUSTERDOWN": "CLUSTERDOWN Hash slot not served",
    "TRYAGAIN": "TRYAGAIN Multiple keys request during rehashing of slot",
    "UNBLOCKED": "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
}
WRAPS = (
    "{}",
    "{} script: 5ba1b2, on @user_script:1.",
    "ERR Error running script (call to f_5ba1b2): @user_script:12: {}",
    "ERR @user_script: 12: -{}",
    "ERR user_script:12: {} script: 5ba1b2, on @user_script:12.",
    "Command # 1 (XADD lp:{{p}}:x * BUSY 1) of pipeline caused error: {}",
    "Command # 2 (SET k v) of pipeline caused error: ('{}',)",
)


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("code", SAID)
def test_what_a_server_refuses_for_a_while_is_an_outage(code: str, wrap: str) -> None:
    """By its code, wherever a script or a pipeline puts it; the message says the reason."""
    ours = translated(PARSED(wrap.format(SAID[code])))
    assert isinstance(ours, RedisUnreachable)
    assert code in str(ours)
    assert SAID[code].partition(" ")[2][:30] in str(ours)


@pytest.mark.parametrize("wrap", WRAPS)
def test_a_full_server_is_full_whatever_the_wrap(wrap: str) -> None:
    said = wrap.format("OOM command not allowed when used memory > 'maxmemory'.")
    assert isinstance(translated(PARSED(said)), RedisFull)


@pytest.mark.parametrize(
    "text",
    [
        "Command # 1 (X: BUSY 1) of pipeline caused error: ('WRONGTYPE Operation against a key',)",
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "ERR unknown command 'LOADING'",
        "BUSYGROUP Consumer Group name already exists",
        "Command # 1 (XADD x * k READONLY now) of pipeline caused error: WRONGTYPE Operation against a key",
    ],
)
def test_a_mistake_of_ours_stays_one(text: str) -> None:
    """Nothing else that is refused is taken for an outage: it would be repeated for ever."""
    assert not isinstance(translated(PARSED(text)), RedisUnreachable | RedisFull)


@asynccontextmanager
async def ours_and_admin(url: str) -> AsyncIterator[tuple[Redis, Redis]]:
    """A client as the product makes it, with an adapter open; and a bare one, whose connections are not pinged."""
    client, admin = connect(redis_settings(url)), Redis.from_url(url)
    yield client, admin
    await client.aclose()
    await admin.aclose()


async def refused(call: Callable[[], Awaitable[object]], code: str) -> None:
    with pytest.raises(RedisUnreachable, match=code):
        await call()


async def is_outlived(client: Redis, code: str, recover: Callable[[], Awaitable[object]]) -> None:
    """Enqueue, beat, plain commands and pipelines say the reason; who persists gets through once it is over."""
    queue, server = Queue(client, "test"), Server(client, pauses_s=())
    await refused(lambda: queue.open_adapter("cfo@1", "ab" * 32), code)
    await refused(lambda: queue.enqueue(job()), code)
    await refused(lambda: queue.members.beat("w1", {"state": "running"}, 5_000), code)
    await refused(lambda: server.command("SET", "k", "v"), code)
    await refused(lambda: server.pipeline([("SET", "k", "v"), ("XADD", "x", "*", "f", "v")]), code)
    opened = asyncio.create_task(retry(lambda: queue.open_adapter("cfo@1", "ab" * 32), "open"))
    await asyncio.sleep(0.05)
    assert not opened.done()
    await recover()
    async with asyncio.timeout(20):
        await opened
    assert (await queue.enqueue(job())).created
    await queue.close()


async def test_a_disk_that_takes_no_snapshot(tmp_path: Path) -> None:
    """MISCONF: the last save to disk failed."""
    with running_server("--dir", str(tmp_path), "--save", "3600 1000000") as url:
        async with ours_and_admin(url) as (client, admin):
            await until(lambda: _says(admin, "persistence", "loading", 0))  # it has looked for a dump by then
            (tmp_path / "dump.rdb" / "in the way").mkdir(parents=True)
            await admin.bgsave()
            await until(lambda: _says(admin, "persistence", "rdb_last_bgsave_status", "err"))
            await is_outlived(client, "MISCONF", lambda: admin.config_set("stop-writes-on-bgsave-error", "no"))


async def test_too_few_replicas() -> None:
    """NOREPLICAS."""
    with running_server("--min-replicas-to-write", "1") as url:
        async with ours_and_admin(url) as (client, admin):
            await is_outlived(client, "NOREPLICAS", lambda: admin.config_set("min-replicas-to-write", 0))


async def test_a_script_that_does_not_end() -> None:
    """BUSY: somebody's script has the server to itself."""
    with running_server("--busy-reply-threshold", "1") as url:
        async with ours_and_admin(url) as (client, admin), ours_and_admin(url) as (_, other):
            looping = asyncio.create_task(_loop(other))
            await until(lambda: _busy(admin))
            await is_outlived(client, "BUSY", admin.script_kill)
            await looping


async def test_a_server_that_loads_its_data(tmp_path: Path) -> None:
    """LOADING: after a restart."""
    with running_server("--dir", str(tmp_path), "--enable-debug-command", "yes") as url:
        async with ours_and_admin(url) as (_, admin):
            await admin.execute_command("DEBUG", "POPULATE", 3000, "filler", 10)
            await admin.save()
    slow = ("--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024")
    with running_server("--dir", str(tmp_path), *slow) as url:
        async with ours_and_admin(url) as (client, admin):
            await is_outlived(client, "LOADING", lambda: until(lambda: _says(admin, "persistence", "loading", 0)))


async def test_a_replica_in_place_of_the_primary() -> None:
    """READONLY while it follows; MASTERDOWN when it has lost its primary; promoted, it serves."""
    with running_server("--replicaof", "127.0.0.1 1", "--replica-serve-stale-data", "no") as url:
        async with ours_and_admin(url) as (client, admin):
            await refused(lambda: Server(client, pauses_s=()).command("GET", "k"), "MASTERDOWN")
            await refused(lambda: membership_of(client, "test").all(), "MASTERDOWN")
            await admin.config_set("replica-serve-stale-data", "yes")
            await is_outlived(client, "READONLY", lambda: admin.replicaof("NO", "ONE"))


async def _says(admin: Redis, section: str, name: str, value: object) -> bool:
    return bool((await admin.info(section))[name] == value)


async def _loop(admin: Redis) -> None:
    with suppress(ResponseError):  # killed
        await admin.eval("while true do end", 0)


async def _busy(admin: Redis) -> bool:
    try:
        await admin.ping()
    except ResponseError as error:
        return "BUSY" in str(error)
    return False
