"""pause, resume, limits, dead, redrive, purge, fsck: the operator's hand on the queue, from the command line."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated

import typer

from lorapool.producer.client.client import Client
from lorapool.producer.commands import options as o
from lorapool.producer.commands.render import count, document, fields, note, say, seconds, table
from lorapool.producer.commands.session import run
from lorapool.shared.queue.protocol import DeadLetter, Limits

AdapterName = Annotated[str, typer.Argument(metavar="ADAPTER", help="Ref, alias or id; _base is the base model.")]
OneAdapter = Annotated[str | None, typer.Argument(metavar="[ADAPTER]", help="Of this adapter only (default: all).")]
OrPool = Annotated[str | None, typer.Argument(metavar="[ADAPTER]", help="Its limits (default: the whole pool's).")]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of dead letters, as dead shows them.")]


def pause(adapter: AdapterName, redis_url: o.RedisUrl = None, pool: o.Pool = None, as_json: o.Json = False) -> None:
    """Let an adapter's jobs wait: it takes them, and no worker claims them. Running ones go on."""
    _admit(lambda client: client.upkeep.pause(adapter), adapter, "paused", redis_url, pool, as_json)


def resume(adapter: AdapterName, redis_url: o.RedisUrl = None, pool: o.Pool = None, as_json: o.Json = False) -> None:
    """Have a paused or closed adapter's jobs taken and claimed again."""
    _admit(lambda client: client.upkeep.resume(adapter), adapter, "open", redis_url, pool, as_json)


def limits(
    adapter: OrPool = None,
    max_depth: o.MaxDepth = None,
    max_inflight: o.MaxInflight = None,
    agent_window: o.AgentWindow = None,
    weight: o.Weight = None,
    redis_url: o.RedisUrl = None,
    pool: o.Pool = None,
    as_json: o.Json = False,
) -> None:
    """Show or set how much may wait and run for an adapter, or wait in the pool.

    lorapool limits cfo --max-inflight 8
    """
    given = {"max_depth": max_depth, "max_inflight": max_inflight, "agent_window": agent_window, "weight": weight}
    changes = {name: _number(name, text) for name, text in given.items() if text is not None}

    async def work(client: Client) -> None:
        limits = await client.upkeep.limits(adapter, **changes)
        if as_json:
            document(asdict(limits))
        else:
            _show_limits(adapter, limits)

    act = ("set limits", adapter or "all") if changes else None
    run(work, redis_url=redis_url, pool=pool, as_json=as_json, act=act)


def dead(
    adapter: OneAdapter = None,
    limit: o.Limit = 50,
    redis_url: o.RedisUrl = None,
    pool: o.Pool = None,
    as_json: o.Json = False,
) -> None:
    """List dead letters, newest first: jobs given up for good, why, and what they were redriven as."""

    async def work(client: Client) -> None:
        letters = await client.upkeep.dead(adapter, n=limit)
        if as_json:
            document([asdict(letter) for letter in letters])
        elif letters:
            columns = ("job", "adapter", "reason", "tries", "died", "redriven as", "message")
            table(columns, map(_row, letters), right=("tries", "died"))
        else:
            note("no dead letters")

    run(work, redis_url=redis_url, pool=pool, as_json=as_json)


def redrive(job_ids: Ids, redis_url: o.RedisUrl = None, pool: o.Pool = None, as_json: o.Json = False) -> None:
    """Submit dead letters again, each as a new job. Prints the new ids; a repeat prints the same."""

    async def work(client: Client) -> None:
        again = [await client.upkeep.redrive(job_id) for job_id in job_ids]
        if as_json:
            document([asdict(job) for job in again])
        else:
            say("\n".join(job.job_id for job in again))

    run(work, redis_url=redis_url, pool=pool, as_json=as_json, act=("redrove", ", ".join(job_ids)))


def purge(
    adapter: OneAdapter = None,
    waiting: o.Waiting = False,
    older_than: o.OlderThan = None,
    every: o.All = False,
    redis_url: o.RedisUrl = None,
    pool: o.Pool = None,
    as_json: o.Json = False,
) -> None:
    """Drop dead letters: an adapter's, old ones, or with --all all; with --waiting cancel what waits for an adapter."""
    if waiting and (adapter is None or older_than is not None or every):
        raise typer.BadParameter("give ADAPTER and nothing else", param_hint="--waiting")
    if not waiting and adapter is None and older_than is None and not every:
        raise typer.BadParameter("say which: ADAPTER, --older-than SECONDS, or --all", param_hint="purge")

    async def work(client: Client) -> None:
        if waiting and adapter is not None:
            gone, done = await client.upkeep.purge_waiting(adapter), "waiting jobs cancelled"
        else:
            gone, done = await client.upkeep.purge_dead(adapter, older_than=older_than or 0.0), "dead letters dropped"
        if as_json:
            document({"purged": gone})
        else:
            say(f"{count(gone)} {done}")

    act = ("purged" if waiting else "purged dead letters", adapter or "all")
    run(work, redis_url=redis_url, pool=pool, as_json=as_json, act=act)


def fsck(redis_url: o.RedisUrl = None, pool: o.Pool = None, as_json: o.Json = False) -> None:
    """Check the queue for damage, repair it, and list the damage. Harmless while jobs run."""

    async def work(client: Client) -> None:
        findings = await client.upkeep.fsck()
        if as_json:
            document([asdict(finding) for finding in findings])
        elif findings:
            table(("damage", "of", "repair"), ((f.damage, f.subject, f.repair) for f in findings))
        else:
            note("nothing is damaged")

    run(work, redis_url=redis_url, pool=pool, as_json=as_json)


def _admit(
    change: Callable[[Client], Awaitable[str]],
    adapter: str,
    state: str,
    redis_url: str | None,
    pool: str | None,
    as_json: bool,
) -> None:
    async def work(client: Client) -> None:
        ref = await change(client)
        if as_json:
            document({"ref": ref, "state": state})
        else:
            say(f"{ref} is {state}")

    act = ("paused" if state == "paused" else "resumed", adapter)
    run(work, redis_url=redis_url, pool=pool, as_json=as_json, act=act)


def _number(name: str, text: str) -> float | None:
    """``none`` is the default again; ranges are checked where the library checks them."""
    if text.lower() == "none":
        return None
    try:
        return float(text)
    except ValueError:
        hint = "--" + name.replace("_", "-")
        raise typer.BadParameter(f"{text!r:.60}: expected a number, or none", param_hint=hint) from None


def _show_limits(adapter: str | None, limits: Limits) -> None:
    shown = {"max_depth": limits.max_depth} if adapter is None else asdict(limits)
    fields({name: "default" if value is None else count(value) for name, value in shown.items()})


def _row(letter: DeadLetter) -> tuple[object, ...]:
    age = seconds(max(0.0, time.time() * 1000 - letter.died_ms))
    return letter.job_id, letter.ref, letter.reason, letter.attempts, age, letter.redriven_as, letter.message[:200]
