"""One command's connection to its pool: from flags to a Client, from its errors to one line and an exit code.

Exit codes: 0 done, 1 the pool or the job said no, 2 the command line is wrong, 130 Ctrl-C.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

import typer

from lorapool.producer.client.client import Client
from lorapool.producer.commands.render import failure, note
from lorapool.shared.errors import LorapoolError

BY = "cli"  # in the audit stream, and as the agent of jobs
Act = tuple[str, str]  # what is done, in the past tense, and on what


def run(
    work: Callable[[Client], Awaitable[None]],
    *,
    redis_url: str | None,
    pool: str | None,
    as_json: bool,
    act: Act | None = None,
) -> None:
    """Connect, do the work, close; any LorapoolError ends the process with code 1. An ``act`` is written into the audit
    stream, one that failed too."""

    async def connected() -> None:
        async with Client(redis_url, pool=pool, agent=BY) as client:
            await (work(client) if act is None else _audited(client, work, act))

    try:
        asyncio.run(connected())
    except LorapoolError as error:
        refuse(error, as_json=as_json)


async def _audited(client: Client, work: Callable[[Client], Awaitable[None]], act: Act) -> None:
    try:
        await work(client)
    except LorapoolError as error:
        await _write_down(client, act, outcome=type(error).__name__, why=str(error))
        raise
    except typer.Exit:  # it has said what is not as wished
        await _write_down(client, act, outcome="with failures")
        raise
    await _write_down(client, act)


async def _write_down(client: Client, act: Act, outcome: str = "done", why: str = "") -> None:
    """What was done stays done where the stream cannot be written: a full server may be why it was done."""
    what, on = act
    try:
        await client.audit.record(BY, what, on, outcome=outcome, note=why)
    except LorapoolError as error:
        note(f"this is not in the audit stream: {error}", style="yellow")


def refuse(error: LorapoolError, *, as_json: bool) -> NoReturn:
    """Say what went wrong, and end with code 1."""
    facts = {name: value for name, value in vars(error).items() if isinstance(value, str | int | float)}
    facts = {name: value for name, value in facts.items() if name != "unsure" and not name.startswith("_")}
    failure(type(error).__name__, str(error), as_json=as_json, facts=facts)
    raise typer.Exit(1)
