"""What operators do from the command line is in the audit stream, beside what they do in a console."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result as Outcome

from lorapool.producer.client.client import Client
from lorapool.shared.access.audit import Act, Audit
from lorapool.shared.errors import RedisFull

Run = Callable[..., Outcome]


def test_acts_are_written_down(run: Run, redis_url: str, pool_name: str, tmp_path: Path) -> None:
    """In order, with what they were done on, and how they ended; what only looks is not there."""
    manifest = tmp_path / "one.toml"
    manifest.write_text('[[adapters]]\nid = "cfo"\nuri = "nowhere"\n')
    run("submit", "_base", "hello", "--job-id", "mine")
    for line in (
        "pause _base",
        "limits _base",
        "limits _base --max-inflight 3",
        "purge _base --waiting",
        "resume _base",
        "cancel mine",
        "purge --all",
        "redrive 0.nobody",
        "adapters alias boss",
        "adapters alias boss nobody@1",
        "adapters register cfo /nowhere --version 2",
        "adapters import nowhere.toml",
        f"adapters import {manifest}",
        "schedule ls",
        "dead",
    ):
        run(*line.split())

    async def recent() -> list[Act]:
        async with Client(redis_url, pool=pool_name) as client:
            return await client.audit.recent()

    acts = asyncio.run(recent())
    assert {"cli"} == {act.who for act in acts}
    assert [
        ("paused", "_base", "done"),
        ("set limits", "_base", "done"),
        ("purged", "_base", "done"),
        ("resumed", "_base", "done"),
        ("cancelled", "mine", "done"),
        ("purged dead letters", "all", "done"),
        ("redrove", "0.nobody", "UnknownJob"),
        ("moved alias", "boss", "UnknownAdapter"),
        ("registered adapter", "cfo@2", "CheckpointError"),
        ("imported adapters", "nowhere.toml", "InvalidRequest"),
        ("imported adapters", "one.toml", "with failures"),
    ] == [(act.what, act.on, act.outcome) for act in reversed(acts)]


def test_what_is_done_stays_done_where_it_cannot_be_written_down(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full server, say, is told of, and fails no act: some are what makes room."""

    async def full(*_args: object, **_options: object) -> None:
        raise RedisFull("no room")

    run("submit", "_base", "hello")
    monkeypatch.setattr(Audit, "record", full)
    paused = run("pause", "_base")
    assert (0, "_base is paused\n") == (paused.exit_code, paused.stdout)
    assert "not in the audit stream: no room" in paused.stderr
