"""``lorapool pause`` and the other commands of operators, on a real server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from typer.testing import CliRunner
from typer.testing import Result as Outcome

from lorapool.producer import Client, JobFailed
from lorapool.producer.cli import app
from lorapool.shared.queue.protocol import Settlement
from lorapool.shared.server.keys import Keys
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.settings import redis_settings
from tests.parts import Queue

Run = Callable[..., Outcome]


@pytest.fixture
def run(redis_url: str, pool_name: str) -> Run:
    def run(*arguments: str, **more: str) -> Outcome:
        env = {"LORAPOOL_REDIS_URL": redis_url, "LORAPOOL_POOL": pool_name, **more}
        return CliRunner().invoke(app, list(arguments), env=env)

    return run


@pytest.fixture
async def dead_job(redis_url: str, pool_name: str) -> str:
    """A job of the base model that failed at each of its attempts: dead, by hand of no worker."""
    redis = connect(redis_settings(redis_url))
    queue = Queue(redis, pool_name)
    async with Client(redis_url, pool=pool_name) as client:
        job = await client.submit(None, "hello", job_id="mine", agent="board-7")
        for attempt in range(3):
            lease = f"L{attempt}"
            claim = await queue.claim("w", lease, ["_base"], 1, 1, 15_000)
            while not claim.jobs:  # its retry is not due yet
                await redis.zadd(queue.keys.one("delayed"), {"mine": 0})
                claim = await queue.claim("w", lease, ["_base"], 1, 1, 15_000)
            await queue.settle([Settlement(job.id, lease, "retry", error="RuntimeError", message="no luck")])
        with pytest.raises(JobFailed):
            await job.result(5)
    await queue.close()
    await redis.aclose()
    return job.id


def _json(outcome: Outcome) -> Any:
    assert outcome.exit_code == 0, outcome.output
    return json.loads(outcome.stdout)


async def test_a_dead_letter_is_seen_redriven_and_purged(redis_url: str, pool_name: str, dead_job: str) -> None:
    """From Python: why it died, the new job, and the letter's end; the failed job stays failed."""
    async with Client(redis_url, pool=pool_name) as client:
        [letter] = await client.upkeep.dead()
        assert (dead_job, "_base", "RuntimeError", "no luck", 3) == (
            letter.job_id,
            letter.ref,
            letter.reason,
            letter.message,
            letter.attempts,
        )
        again = await client.upkeep.redrive(dead_job)
        assert again.job_id == (await client.upkeep.redrive(dead_job)).job_id
        assert (await client.get(again.job_id).record())["redrive_of"] == "mine"
        assert [again.job_id] == [letter.redriven_as for letter in await client.upkeep.dead("_base", n=1)]
        assert 0 == await client.upkeep.purge_dead(older_than=3_600)
        assert 1 == await client.upkeep.purge_dead("_base")
        assert [] == await client.upkeep.dead()
        assert 1 == await client.upkeep.purge_waiting("_base")
        assert "cancelled" == await client.get(again.job_id).state()
        assert "failed" == await client.get(dead_job).state()
        assert [] == await client.upkeep.fsck()


def test_dead_letters_on_the_command_line(run: Run, dead_job: str) -> None:
    """Listed, redriven to an id on stdout, purged."""
    head, row = run("dead").stdout.splitlines()
    assert ["JOB", "ADAPTER", "REASON", "TRIES", "DIED", "REDRIVEN", "AS", "MESSAGE"] == head.split()
    assert [dead_job, "_base", "RuntimeError", "3"] == row.split()[:4]
    again = run("redrive", dead_job).stdout
    assert again == run("redrive", "mine").stdout
    assert [again.strip()] == [letter["redriven_as"] for letter in _json(run("dead", "_base", "--json"))]
    assert "redrive_of" in run("job", again.strip(), "--json").stdout
    assert run("purge", "_base", "--waiting").stdout == "1 waiting jobs cancelled\n"
    assert {"purged": 1} == _json(run("purge", "--json", LORAPOOL_ALL="1"))
    assert "no dead letters" in run("dead").stderr


def test_what_is_no_dead_letter_is_not_redriven(run: Run) -> None:
    """One line, code 1."""
    run("submit", "_base", "hello", "--job-id", "alive")
    outcome = run("redrive", "alive")
    assert outcome.exit_code == 1
    assert "error: job 0.alive is queued and no dead letter" in outcome.stderr
    assert run("redrive", "nobody").exit_code == 1


def test_purge_wants_to_know_what(run: Run) -> None:
    """Neither everything by a slip, nor waiting jobs without an adapter."""
    for arguments in (["purge"], ["purge", "--waiting"], ["purge", "_base", "--waiting", "--older-than", "3"]):
        assert run(*arguments).exit_code == 2


def test_an_adapter_is_paused_and_resumed(run: Run) -> None:
    """Its jobs wait, and explain says so."""
    run("submit", "_base", "hello", "--job-id", "mine")
    assert run("pause", "_base").stdout == "_base is paused\n"
    assert "is paused" in run("job", "mine", "--explain").stdout
    assert {"ref": "_base", "state": "open"} == _json(run("resume", "_base", "--json"))
    assert run("pause", "nobody").exit_code == 1


def test_limits_are_set_shown_and_reset(run: Run) -> None:
    """By flag or environment; none is the default again."""
    assert "max_inflight  8" in run("limits", "_base", "--max-inflight", "8").stdout
    assert _json(run("limits", "_base", "--json", LORAPOOL_WEIGHT="2.5")) == {
        "max_depth": None,
        "max_inflight": 8,
        "agent_window": None,
        "weight": 2.5,
    }
    assert "max_inflight  default" in run("limits", "_base", "--max-inflight", "none").stdout
    assert run("limits", "--max-depth", "1").stdout == "max_depth  1\n"
    run("submit", "_base", "hello")
    refused = run("submit", "_base", "hello", "--json")
    error = json.loads(refused.stderr)["error"]
    assert ("QueueFull", "pool", 1) == (error["type"], error["scope"], error["limit"])
    assert run("limits", "_base", "--max-depth", "many").exit_code == 2
    assert run("limits", "_base", "--max-depth", "0").exit_code == 1


def test_fsck_says_what_it_found(run: Run, redis_url: str, pool_name: str) -> None:
    """Once; then nothing is damaged."""
    run("submit", "_base", "hello", "--job-id", "mine")
    assert "nothing is damaged" in run("fsck").stderr
    keys = Keys(pool_name)
    _raw(redis_url, "UNLINK", keys.stream("_base"))
    [finding] = _json(run("fsck", "--json"))
    assert finding == {"damage": "queued_job_without_entry", "subject": "mine", "repair": "put back into its stream"}
    _raw(redis_url, "UNLINK", keys.stream("_base"))
    assert "queued_job_without_entry  mine  put back into its stream" in run("fsck").stdout
    assert [] == _json(run("fsck", "--json"))


def _raw(redis_url: str, *command: str) -> None:
    with Redis.from_url(redis_url) as redis:
        redis.execute_command(*command)
