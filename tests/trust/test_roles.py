"""Each role of docs/trust.md does its real work through its own user, and the server denies none of it."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from lorapool.producer.cli import app
from lorapool.producer.client.client import Client
from lorapool.producer.sync import Client as SyncClient
from lorapool.shared.errors import JobCancelled
from tests.fake_model import UNREADABLE, expected
from tests.fleet import WorkerProcess, started
from tests.trust.conftest import CFO, POOL, denied, url_of, wait_for


@pytest.fixture(autouse=True)
def nothing_denied(admin: Any) -> Iterator[None]:
    """After each test the server's log of denials is empty."""
    yield
    assert [] == denied(admin)


async def test_agents_publishers_and_workers(server: str, worker: WorkerProcess) -> None:
    """An adapter is registered, named and removed; jobs are asked, streamed, delayed, cancelled and explained."""
    async with (
        Client(url_of(server, "publisher"), pool=POOL) as publisher,
        Client(url_of(server, "agent"), pool=POOL, agent="board-7") as agent,
    ):
        record = await publisher.adapters.register("cfo", str(CFO), version="1", aliases=["CFO"], timeout=30)
        await ask(agent, record.digest)
        await look(agent)
        await publisher.adapters.verify("cfo", worker=True)
        await publisher.adapters.alias("money", "cfo@1")
        for alias in ("money", "cfo"):
            await publisher.adapters.unalias(alias)
        await publisher.adapters.remove("cfo@1", force=True)
    assert worker.stop() == 0
    assert not {"runway", "password"} & set(re.findall(r"\w+", worker.log())), "prompts or passwords in the log"


async def ask(agent: Client, digest: str) -> None:
    """All ways to have a job, and to have it no more."""
    job = await agent.submit("CFO", "How long is our runway?", max_new_tokens=5)
    assert expected("How long is our runway?", digest, 5) == (await job.result(30)).token_ids
    streamed = await agent.submit("cfo", "stream", max_new_tokens=300, stream=True)
    assert "".join([delta.text async for delta in streamed.stream()]) == (await streamed.result(30)).text
    delayed = await agent.submit(None, "later", delay=60, priority="low", deadline=90)
    assert "delayed" == (await agent.explain(delayed.id)).state
    await delayed.cancel()
    with pytest.raises(JobCancelled):
        await delayed.result(10)
    await agent.gather([("cfo", f"question {n}") for n in range(5)], timeout=30)


async def look(agent: Client) -> None:
    """What an agent may know of its pool."""
    await agent.adapters.list()
    await agent.stats("cfo")
    await agent.agent_stats("board-7")
    await agent.backlog()
    await agent.config()
    assert ["w1"] == [found["worker"] for found in await agent.workers()]


@dataclass
class Lorapool:
    """The command line in an operator's hands; ``ran``: the commands it has seen."""

    url: str
    ran: set[str] = field(default_factory=set)

    def __call__(self, words: str, *args: str, exit_code: int = 0) -> str:
        """What it printed. Raises AssertionError for another exit code."""
        done = CliRunner().invoke(app, [*words.split(), *args, "--redis-url", self.url, "--pool", POOL])
        assert exit_code == done.exit_code, f"lorapool {words} {args}: {done.output}"
        self.ran.add(words)
        return done.stdout.strip()


def test_operators(server: str, worker: WorkerProcess, tmp_path: Path) -> None:
    """Every command of ``lorapool`` but ``adapters publish``, which needs a store and then registers, and ``up``, which
    brings a server of its own."""
    lorapool = Lorapool(url_of(server, "operator"))
    tend_the_catalog(lorapool, tmp_path)
    tend_jobs(lorapool)
    tend_batches(lorapool, tmp_path)
    tend_keys(lorapool)
    for look in ("workers", "stats", "fsck"):
        lorapool(look)
    lorapool("cost", "--gpu-price", "2.5")
    lorapool("adapters rm", "cfo@2", "--force")
    assert {*commands(typer.main.get_command(app))} - {"adapters publish", "up"} == lorapool.ran
    assert worker.stop() == 0


def tend_the_catalog(lorapool: Lorapool, folder: Path) -> None:
    manifest = folder / "pool.toml"
    manifest.write_text(f'[[adapters]]\nid = "cfo"\nuri = "{CFO}"\nversion = "2"\n')
    lorapool("adapters register", "cfo", str(CFO), "--version", "1", "--alias", "CFO")
    lorapool("adapters import", str(manifest))
    lorapool("adapters alias", "CFO", "cfo@2")
    lorapool("adapters canary", "CFO", "cfo@1", "--percent", "0")
    lorapool("adapters rollback", "CFO")
    lorapool("adapters ls")
    lorapool("adapters show", "cfo")
    lorapool("adapters verify", "--worker")
    lorapool("schedule add", "CFO", "Close the books.", "--at", "2040-01-01T08:00", "--name", "books")
    lorapool("schedule ls")
    lorapool("schedule rm", "books")


def tend_jobs(lorapool: Lorapool) -> None:
    lorapool("submit", "CFO", "How long?", "--stream", "--max-new-tokens", "3")
    done = lorapool("submit", "CFO", "How long?")
    lorapool("result", done)
    lorapool("job", done, "--explain")
    lorapool("pause", "cfo@1")
    lorapool("cancel", lorapool("submit", "cfo@1", "later"))
    lorapool("resume", "cfo@1")
    lorapool("limits", "cfo@1", "--max-inflight", "8")
    broken = lorapool("submit", "CFO", UNREADABLE)
    lorapool("result", broken, exit_code=1)
    lorapool("dead")
    lorapool("redrive", broken)
    lorapool("purge", "--all")
    lorapool("purge", "cfo@1", "--waiting")


def tend_batches(lorapool: Lorapool, folder: Path) -> None:
    """The gateway is a Redis user with the operator's rules; it feeds."""
    line = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"model": "cfo@1", "prompt": "How?"}}
    questions, files = folder / "questions", str(folder / "files")
    questions.write_text(json.dumps(line))
    lorapool("batch cancel", lorapool("batch submit", str(questions), "--files", files))
    program = [str(Path(sys.executable).parent / "lorapool"), "gateway", "--port", "0", "--files", files]
    with started([*program, "--redis-url", lorapool.url, "--pool", POOL], "gateway") as gateway:
        lorapool.ran.add("gateway")
        shown = lorapool("batch submit", str(questions), "--files", files, "--wait")
        batch = shown.split()[1]
        lorapool("batch show", batch)
        assert '"custom_id":"a"' in lorapool("batch fetch", batch, "--files", files)
        assert "cancelled" in lorapool("batch ls")
        assert 0 == gateway.stop()


def tend_keys(lorapool: Lorapool) -> None:
    lorapool("keys add", "ops", "--role", "operator")
    lorapool("keys ls")
    lorapool("keys show", "ops")
    lorapool("keys revoke", "ops")


def commands(command: Any, *words: str) -> Iterator[str]:
    """Every command below that one, by its words. (Which click typer brings differs by its release.)"""
    if not hasattr(command, "commands"):
        yield " ".join(words)
        return
    for name, below in command.commands.items():
        yield from commands(below, *words, name)


def test_maintenance(server: str, worker: WorkerProcess, admin: Any) -> None:
    """Each chore is done, a scheduled job runs, and what a killed worker left goes."""
    chores = f"lp:{{{POOL}}}:chores"
    with SyncClient(url_of(server, "publisher"), pool=POOL) as publisher, maintained(server):
        publisher.schedules.add(None, "now", at=datetime.now(UTC) + timedelta(seconds=1), max_new_tokens=1)
        wait_for(lambda: "succeeded" in str(publisher.schedules.list()))
        worker.signal(signal.SIGKILL)
        wait_for(lambda: not admin.exists(f"lp:{{{POOL}/0}}:claim:w1"))
        wanted = {"schedule", "fsck", "dead_letters", "dead_workers"}
        wait_for(lambda: wanted <= {name.partition(".")[0] for name in admin.hgetall(chores)})


@contextmanager
def maintained(server: str) -> Iterator[WorkerProcess]:
    """A maintenance worker with short periods, which leaves with 0."""
    every = [f"--{chore}-every=0.5" for chore in ("schedule", "fsck", "digest", "prune")]
    program = str(Path(sys.executable).parent / "lorapool-worker")
    command = [program, "maintenance", "--redis-url", url_of(server, "maintenance"), "--pool", POOL, *every]
    with started(command, "maintenance") as process:
        yield process
        assert process.stop() == 0
