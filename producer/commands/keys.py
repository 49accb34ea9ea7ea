"""keys add, ls, show, revoke: who may ask the pool through its gateway, and how much, from the command line."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from lorapool.producer.client.client import Client
from lorapool.producer.commands import options as o
from lorapool.producer.commands.render import count, document, fields, note, plain, say, table
from lorapool.producer.commands.session import run
from lorapool.shared.access.key import Key, KeyUse

app = typer.Typer(
    help="API keys of the gateway. Once there is one, the gateway asks everybody for a key.", no_args_is_help=True
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The key's name; its jobs are counted under it.")]


@app.command()
def add(
    name: Name,
    adapters: o.KeyAdapters = None,
    jobs_per_minute: o.JobsPerMinute = None,
    tokens_per_day: o.TokensPerDay = None,
    window: o.KeyWindow = None,
    agent: o.KeyAgent = None,
    role: o.KeyRole = o.Role.AGENT,
    redis_url: o.RedisUrl = None,
    pool: o.Pool = None,
    as_json: o.Json = False,
) -> None:
    """Add a key. Prints its secret, once: only a hash of it is kept.

    lorapool keys add board-7 --adapters 'cfo*' --jobs-per-minute 60 --tokens-per-day 1e6
    """
    given: dict[str, Any] = {"agent": agent, "adapters": tuple(adapters or ("*",)), "role": role.value}
    limits = {"jobs_per_minute": jobs_per_minute, "tokens_per_day": tokens_per_day, "window": window}
    given |= {limit: _whole(limit, text) for limit, text in limits.items() if text is not None}

    async def work(client: Client) -> None:
        secret = await client.keys.add(name, **given)
        if as_json:
            document({**plain(await client.keys.get(name)), "secret": secret})
        else:
            say(secret)
            note(f"the key of {name}, shown this once; clients send it as Authorization: Bearer, or as OPENAI_API_KEY")

    run(work, redis_url=redis_url, pool=pool, as_json=as_json)


@app.command()
def ls(redis_url: o.RedisUrl = None, pool: o.Pool = None, as_json: o.Json = False) -> None:
    """List the keys: what each may ask, and what it has used of its quotas."""

    async def work(client: Client) -> None:
        uses = await client.keys.list()
        if as_json:
            document([_plain(use) for use in uses])
        elif uses:
            columns = ("key", "role", "agent", "adapters", "jobs this minute", "tokens today", "window", "revoked")
            table(columns, map(_row, uses), right=("jobs this minute", "tokens today", "window"))
        else:
            note("no keys: the gateway serves its own machine alone; lorapool keys add NAME")

    run(work, redis_url=redis_url, pool=pool, as_json=as_json)


@app.command()
def show(name: Name, redis_url: o.RedisUrl = None, pool: o.Pool = None, as_json: o.Json = False) -> None:
    """Show one key, and what its agent's jobs came to so far."""

    async def work(client: Client) -> None:
        key = await client.keys.get(name)
        counters = await client.agent_stats(key.agent)
        if as_json:
            document({**plain(key), "counters": counters})
        else:
            fields({**_shown(key), **{counter: count(value) for counter, value in counters.items() if value}})

    run(work, redis_url=redis_url, pool=pool, as_json=as_json)


@app.command()
def revoke(name: Name, redis_url: o.RedisUrl = None, pool: o.Pool = None, as_json: o.Json = False) -> None:
    """Revoke a key: from now on it submits nothing. What it has submitted goes on."""

    async def work(client: Client) -> None:
        await client.keys.revoke(name)
        if as_json:
            document({"revoked": name})
        else:
            say(f"{name} is revoked")

    run(work, redis_url=redis_url, pool=pool, as_json=as_json)


def _whole(name: str, text: str) -> int:
    """``60`` or ``1e6``."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value.is_integer():
        raise typer.BadParameter(
            f"{text!r:.40}: expected a whole number, such as 60 or 1e6", param_hint=f"--{name.replace('_', '-')}"
        )
    return int(value)


def _plain(use: KeyUse) -> dict[str, Any]:
    return {**plain(use.key), "jobs_this_minute": use.jobs, "tokens_today": use.tokens}


def _row(use: KeyUse) -> tuple[object, ...]:
    key = use.key
    jobs, tokens = _against(use.jobs, key.jobs_per_minute), _against(use.tokens, key.tokens_per_day)
    return key.name, key.role, key.agent, key.adapters, jobs, tokens, key.window, _when(key.revoked_ms)


def _against(used: int, limit: int | None) -> str:
    return count(used) if limit is None else f"{count(used)} of {count(limit)}"


def _shown(key: Key) -> dict[str, object]:
    return {**plain(key), "created_ms": None, "revoked_ms": None} | {
        "added": _when(key.created_ms),
        "revoked": _when(key.revoked_ms),
    }


def _when(moment_ms: int | None) -> str | None:
    return None if moment_ms is None else f"{datetime.fromtimestamp(moment_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
