"""Schedules from an agent's code and from the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from typer.testing import CliRunner
from typer.testing import Result as Outcome

from lorapool.producer import Client, InvalidRequest, ScheduleConflict, UnknownAdapter, UnknownSchedule
from lorapool.producer import sync as blocking
from lorapool.producer.cli import app
from lorapool.shared.errors import PayloadTooLarge
from lorapool.shared.timetable.schedule import moment_ms

Run = Callable[..., Outcome]


@pytest.fixture
def run(redis_url: str, pool_name: str) -> Run:
    """``run("schedule", …)`` on a pool of its own."""

    def run(*arguments: str) -> Outcome:
        env = {"LORAPOOL_REDIS_URL": redis_url, "LORAPOOL_POOL": pool_name}
        return CliRunner().invoke(app, ["schedule", *arguments], env=env)

    return run


async def test_an_entry_is_added_listed_and_removed(client: Client):
    """With everything a submitted request may say."""
    chat = [{"role": "user", "content": "What is due?"}]
    added = await client.schedules.add(
        None, messages=chat, cron=" 0  8 * * 1-5 ", tz="Europe/Berlin", name="morning", agent="board", priority="low",
        deadline=60, max_late=timedelta(minutes=5), temperature=0.5, stop="x", max_new_tokens=9,
    )  # fmt: skip
    assert ("0 8 * * 1-5", None, "board", "low", 60_000, 300_000) == (
        added.cron, added.adapter, added.agent, added.priority, added.deadline_ms, added.max_late_ms
    )  # fmt: skip
    assert (0.5, ("x",), 9) == (added.params.temperature, added.params.stop, added.params.max_new_tokens)
    assert [added] == await client.schedules.list()
    await client.schedules.remove("morning")
    assert [] == await client.schedules.list()
    with pytest.raises(UnknownSchedule, match="morning"):
        await client.schedules.remove("morning")


async def test_a_time_may_be_given_as_one(client: Client):
    """A datetime or text; in the zone unless it says its own."""
    soon = datetime.now(UTC) + timedelta(hours=1)
    added = await client.schedules.add(None, "x", at=soon)
    assert round(soon.timestamp() * 1000) == added.next_ms
    year = soon.year + 1
    added = await client.schedules.add(None, "x", at=f"{year}-07-01T08:00", tz="Asia/Tokyo")
    assert moment_ms(f"{year}-06-30T23:00", "UTC") == added.next_ms


async def test_the_same_again_is_harmless_and_another_is_refused(client: Client):
    for _ in range(2):
        await client.schedules.add(None, "x", cron="0 8 * * *", name="n")
    with pytest.raises(ScheduleConflict, match="says something else"):
        await client.schedules.add(None, "y", cron="0 8 * * *", name="n")
    assert 1 == len(await client.schedules.list())


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"cron": "0 8 * *"}, InvalidRequest, "five fields"),
        ({"cron": "0 8 * * *", "at": "2099-01-01"}, InvalidRequest, "exactly one of cron and at"),
        ({}, InvalidRequest, "exactly one of cron and at"),
        ({"at": "2001-01-01"}, InvalidRequest, "has passed"),
        ({"cron": "0 8 * * *", "tz": "Nowhere"}, InvalidRequest, "not a time zone"),
        ({"cron": "0 8 * * *", "max_late": 0}, InvalidRequest, "1 to 43,200"),
        ({"cron": "0 8 * * *", "name": "a b"}, InvalidRequest, "name = 'a b'"),
        ({"cron": "0 8 * * *", "max_tokens": 5}, InvalidRequest, "max_new_tokens"),
        ({"cron": "0 8 * * *", "prompt": None}, InvalidRequest, "exactly one of prompt, prompt_ids and messages"),
        ({"cron": "0 8 * * *", "prompt": "x" * 1_100_000}, PayloadTooLarge, "the limit is"),
        ({"cron": "0 8 * * *", "adapter": "ghost"}, UnknownAdapter, "ghost"),
    ],
)
async def test_what_could_never_run_is_refused_at_once(client: Client, arguments, error, match: str):
    """With the words of submit; nothing is stored."""
    adapter, prompt = arguments.pop("adapter", None), arguments.pop("prompt", "x")
    with pytest.raises(error, match=match):
        await client.schedules.add(adapter, prompt, **arguments)
    assert [] == await client.schedules.list()


async def test_whether_somebody_makes_the_runs_is_known(client: Client, redis: AsyncRedis, pool_name: str):
    """From the book of the maintenance workers."""
    assert not await client.schedules.watched()
    seconds, _ = await redis.time()
    await redis.hset(f"lp:{{{pool_name}}}:chores", "schedule.began_ms", seconds * 1000 - 30_000)
    assert await client.schedules.watched()
    await redis.hset(f"lp:{{{pool_name}}}:chores", "schedule.began_ms", seconds * 1000 - 90_000)
    assert not await client.schedules.watched()


def test_blocking_code_has_the_same(redis_url: str, pool_name: str):
    with blocking.Client(redis_url, pool=pool_name) as pool:
        pool.schedules.add(None, "x", cron="0 8 * * *", name="n")
        assert ["n"] == [entry.name for entry in pool.schedules.list()]
        assert not pool.schedules.watched()
        pool.schedules.remove("n")
        assert [] == pool.schedules.list()


def test_the_command_line_adds_lists_and_removes(run: Run):
    """The name alone on stdout; when it runs next, and that nobody makes the runs, on stderr."""
    outcome = run("add", "0 8 * * *", "_base", "Good morning", "--name", "morning", "-n", "5", "--tz", "Europe/Berlin")
    assert (0, "morning\n") == (outcome.exit_code, outcome.stdout), outcome.output
    assert re.search(r"next run: \d{4}-\d\d-\d\d 08:00 Europe/Berlin", outcome.stderr)
    assert "lorapool-worker maintenance" in outcome.stderr
    header, line = run("ls").stdout.splitlines()
    assert ["NAME", "WHEN", "ADAPTER", "NEXT", "RUN"] == header.split()[:5]
    assert ["morning", "0", "8", "*", "*", "*", "_base"] == line.split()[:7]
    assert "morning is removed\n" == run("rm", "morning").stdout
    assert "no schedules" in run("ls").stderr


def test_programs_read_json(run: Run):
    added = json.loads(run("add", "--at", "2099-01-01T08:00", "_base", "x", "--name", "n", "--json").stdout)
    assert (moment_ms("2099-01-01T08:00", "UTC"), "x") == (added["next_ms"], added["prompt"])
    assert [added] == json.loads(run("ls", "--json").stdout)
    assert {"removed": "n"} == json.loads(run("rm", "n", "--json").stdout)
    outcome = run("rm", "n", "--json")
    assert (1, "UnknownSchedule") == (outcome.exit_code, json.loads(outcome.stderr)["error"]["type"])


def test_the_last_run_is_listed_with_its_state(run: Run, redis_url: str, pool_name: str):
    """Its job and how it stands; why a run was refused."""
    run("add", "0 8 * * *", "_base", "x", "--name", "n")
    prefix = f"lp:{{{pool_name}"
    with Redis.from_url(redis_url) as redis:
        redis.hset(f"{prefix}/0}}:job:at-1", mapping={"state": "running", "ref": "_base"})
        redis.hset(f"{prefix}}}:schedule:n", mapping={"last_job": "0.at-1", "last_error": "QueueFull: too many"})
    line = run("ls").stdout.splitlines()[1]
    assert line.split()[-5:] == ["0.at-1", "running", "QueueFull:", "too", "many"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("add", "_base"), 2, "expected CRON ADAPTER [PROMPT]"),
        (("add", "0", "8", "*", "*", "*", "_base"), 2, "CRON in quotes"),
        (("add", "--at", "2099-01-01", "a", "b", "c"), 2, "expected ADAPTER [PROMPT]"),
        (("add", "0 8 * * *", "_base"), 2, "PROMPT"),
        (("add", "0 8 * * 9", "_base", "x"), 1, "Bad day-of-week"),
    ],
)
def test_a_wrong_command_line_is_told_in_a_line(run: Run, arguments: tuple[str, ...], code: int, message: str):
    """What was given and what was expected."""
    outcome = run(*arguments)
    assert (code, 1) == (outcome.exit_code, len(outcome.stderr.splitlines())), outcome.output
    assert message in outcome.stderr
