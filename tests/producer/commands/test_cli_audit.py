"""What operators do from the command line is in the audit stream, beside what they do in a console."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from typer.testing import Result as Outcome

from lorapool.producer.client.client import Client
from lorapool.shared.access.audit import Act

Run = Callable[..., Outcome]


def test_acts_are_written_down(run: Run, redis_url: str, pool_name: str) -> None:
    """In order, with what they were done on, and how they ended; what only looks is not there."""
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
    ] == [(act.what, act.on, act.outcome) for act in reversed(acts)]
