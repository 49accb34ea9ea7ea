"""What the rules of docs/trust.md deny each role, and what they do not, as the page says."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis
from redis import exceptions as redis_errors

from lorapool.producer.sync import Client
from lorapool.shared.errors import RedisAuthFailed
from lorapool.shared.server.keys import Keys, PoolKeys
from tests.fleet import WorkerProcess
from tests.trust.conftest import CFO, OTHER, POOL, ROLES, url_of

OURS, CATALOG = Keys(POOL), PoolKeys(POOL)
FOREIGN_JOB, FOREIGN_STREAM = Keys(OTHER).job("1"), Keys(OTHER).stream("_base")
DENIED = re.compile("(has n|N)o permissions|ACL failure in script|The user executing the script can't")

POOLS = [  # what belongs to others, also those whose names look like ours
    ("HGETALL", FOREIGN_JOB),
    ("HSET", FOREIGN_JOB, "text", "forged"),
    ("XADD", FOREIGN_STREAM, "*", "job", "1"),
    ("XREAD", "STREAMS", FOREIGN_STREAM, "0"),
    ("HGETALL", PoolKeys(OTHER).config),
    ("HGETALL", PoolKeys(f"{POOL}.0").config),
    ("HGETALL", Keys(f"{POOL}2").job("1")),
    ("COPY", FOREIGN_JOB, OURS.job("1")),
    ("EVAL", "return redis.call('HGETALL', ARGV[1])", "0", FOREIGN_JOB),
    ("EVAL", "return redis.call('HSET', KEYS[1], 'text', 'forged')", "1", FOREIGN_JOB),
]
SERVER = [  # what belongs to the administrator
    *(("EVAL", f"return redis.call({words})", "0") for words in ("'FLUSHALL'", "'KEYS', '*'")),
    *(
        tuple(words.split())
        for words in (
            "FLUSHALL",
            "FLUSHDB",
            "KEYS *",
            "RANDOMKEY",
            "SWAPDB 0 1",
            "CONFIG GET *",
            "CONFIG SET maxmemory 1",
            "ACL LIST",
            "ACL SETUSER me",
            "CLIENT LIST",
            "CLIENT KILL TYPE normal",
            "CLIENT PAUSE 1",
            "MONITOR",
            "SCRIPT FLUSH",
            "SCRIPT KILL",
            "FUNCTION FLUSH",
            "SHUTDOWN NOSAVE",
            "SAVE",
            "REPLICAOF host 1",
            "MIGRATE host 1 key 0 1",
            "SLOWLOG GET",
            "SUBSCRIBE channel",
            "PUBLISH channel message",
        )
    ),
]
FOR_AGENTS = [  # what belongs to publishers and operators
    ("HSET", CATALOG.aliases, "cfo", "mine@1"),
    ("HSET", CATALOG.adapter("cfo@1"), "uri", "/mine"),
    ("HSET", CATALOG.config, "base_model", "mine"),
    ("DEL", CATALOG.worker("w1")),
    ("EVAL", "return redis.call('DEL', KEYS[1])", "1", CATALOG.aliases),
    ("SCAN", "0"),
    ("DBSIZE",),
    ("INFO",),
]


def refused(server: str, role: str, commands: list[tuple[str, ...]]) -> None:
    """Each of them, sent by that role, is denied by its rules and not for another reason."""
    with Redis.from_url(url_of(server, role)) as redis:
        for command in commands:
            try:
                answer: Any = redis.execute_command(*command)
            except redis_errors.ResponseError as error:
                answer = str(error)
            assert DENIED.search(str(answer)), f"{role}: {command} → {answer}"


@pytest.mark.parametrize("role", ROLES)
def test_no_role_reaches_another_pool(server: str, role: str) -> None:
    """Neither by commands nor within scripts."""
    refused(server, role, POOLS)


@pytest.mark.parametrize("role", ROLES)
def test_no_role_commands_the_server(server: str, role: str) -> None:
    """Nothing of the administrator's, other clients' or other keys' names."""
    refused(server, role, SERVER)


def test_agents_leave_the_catalog_alone(server: str, worker: WorkerProcess) -> None:
    """They change neither names, versions, config nor workers' records, and hear why they may not register."""
    refused(server, "agent", FOR_AGENTS)
    with Client(url_of(server, "agent"), pool=POOL) as agent, pytest.raises(RedisAuthFailed, match="its ACL"):
        agent.adapters.register("cfo", str(CFO))


def test_nobody_comes_in_without_a_password(server: str) -> None:
    """The default user is off."""
    with Redis.from_url(f"redis://{server}") as redis, pytest.raises(redis_errors.AuthenticationError):
        redis.ping()


def test_agents_of_a_pool_read_and_forge_each_others_jobs(server: str) -> None:
    """Not protected, as the page says."""
    with Client(url_of(server, "agent"), pool=POOL) as victim, Redis.from_url(url_of(server, "agent")) as agent:
        job = victim.submit(None, "a secret", delay=60)
        bare = job.id.partition(".")[2]
        assert b"a secret" in agent.get(OURS.payload(bare))
        agent.hset(OURS.job(bare), mapping={"state": "succeeded", "text": "forged"})
        assert ("succeeded", "forged") == (job.record()["state"], job.record()["text"])


def test_who_may_scan_sees_the_names_of_all_keys(server: str, admin: Any) -> None:
    """Not protected, as the page says: key rules do not bind SCAN."""
    admin.set(FOREIGN_JOB, 1)
    with Redis.from_url(url_of(server, "operator")) as operator:
        assert FOREIGN_JOB.encode() in set(operator.scan_iter())


def test_a_script_of_one_pool_keeps_the_server_from_all(server: str, admin: Any) -> None:
    """Not protected, as the page says: the server runs one script at a time."""
    loop = "local n = 0 while n < 3e7 do n = n + 1 end return n"
    admin.config_set("busy-reply-threshold", 60_000)  # rather wait than be told to
    with Redis.from_url(url_of(server, "agent")) as agent, ThreadPoolExecutor() as beside:
        looping = beside.submit(agent.eval, loop, 0)
        waits_s = []
        while not looping.done():
            asked = time.monotonic()
            admin.ping()
            waits_s.append(time.monotonic() - asked)
            time.sleep(0.005)
    assert max(waits_s) > 0.1
