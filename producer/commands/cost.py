"""cost: the bill from the command line: a table, JSON, a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lorapool.producer.client.client import Client
from lorapool.producer.commands import options as o
from lorapool.producer.commands.render import count, document, fields, note, say, table
from lorapool.producer.commands.session import run
from lorapool.producer.operator.cost import Bill, Share
from lorapool.producer.operator.cost_plot import plot as draw
from lorapool.producer.operator.meter import Meter
from lorapool.producer.operator.tariff import GPU_USD_PER_HOUR, Tariff
from lorapool.shared.errors import InvalidRequest


def cost(
    gpu_price: o.GpuPrice = GPU_USD_PER_HOUR,
    gpu_hours: o.GpuHours = None,
    full_at: o.FullAt = 0.8,
    capacity: o.Capacity = None,
    persona_tokens: o.PersonaTokens = 200,
    swap_seconds: o.SwapSeconds = None,
    since: o.Since = None,
    plot: o.Plot = None,
    redis_url: o.RedisUrl = None,
    pool: o.Pool = None,
    as_json: o.Json = False,
) -> None:
    """Work out what GPU time cost: per request, token, agent and adapter, beside other ways to serve the same.

    From what workers measured. A bill for a period: lorapool cost --json > then.json, later --since then.json
    """

    async def work(client: Client) -> None:
        tariff = Tariff(gpu_price, gpu_hours, full_at, capacity, persona_tokens, swap_seconds)
        bill = await client.cost(tariff)
        if since is not None:
            bill = replace(bill, meter=bill.meter.since(_earlier(since)))
        if plot is not None:
            draw(bill, plot)
            note(f"plot: {plot}")
        if as_json:
            document(bill.document())
        elif bill.requests:
            _show(bill)
        else:
            note("no request has been answered yet")

    run(work, redis_url=redis_url, pool=pool, as_json=as_json)


def _earlier(path: Path) -> Meter:
    try:
        earlier = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"--since {path}: {error}") from None
    if not isinstance(earlier, dict):
        raise InvalidRequest(f"--since {path}: expected what `lorapool cost --json` wrote")
    return Meter.of(earlier)


def _show(bill: Bill) -> None:
    prompt, completion = bill.usd_per_token
    idle = "-" if bill.idle_share is None else f"{bill.idle_share:.0%}"
    fields(
        {
            "requests answered": count(bill.requests),
            "tokens": f"{count(bill.prompt_tokens)} of prompts, {count(bill.completion_tokens)} new",
            "GPU hours": f"{bill.gpu_hours:,.4g} held, {bill.busy_hours:,.4g} busy ({idle} idle)",
            "price": f"{usd(bill.usd)} at {usd(bill.tariff.gpu_usd_per_hour)} a GPU hour",
            "a request": usd(bill.usd_per_request),
            "a million tokens": f"{usd(1e6 * prompt)} of prompts, {usd(1e6 * completion)} new",
        }
    )
    _shares("adapter", bill.adapters)
    _shares("agent", bill.agents)
    _baselines(bill)
    for line in ("", *bill.notes):
        say(line, style="dim")
    if not bill.tariff.capacity:
        say("--capacity takes a benchmark's figure for how much a GPU does", style="dim")


def usd(amount: float) -> str:
    """``$12.34``; four figures of what is less than a dollar."""
    return f"${amount:,.2f}" if amount >= 1 or not amount else f"${amount:.4g}"


def _shares(what: str, shares: Mapping[str, Share]) -> None:
    say()
    columns = (what, "requests", "prompt", "new tokens", "hits", "load s", "usd")
    dearest = sorted(shares.items(), key=lambda item: -item[1].estimated_usd)
    rows = (
        (
            name,
            count(share.requests),
            count(share.prompt_tokens),
            count(share.completion_tokens),
            "-" if share.hit_rate is None else f"{share.hit_rate:.0%}",
            f"{share.load_s:.1f}",
            usd(share.estimated_usd),
        )
        for name, share in dearest
    )
    table(columns, rows, right=columns[1:])


def _baselines(bill: Bill) -> None:
    say()
    columns = ("the same requests on", "gpus", "hours of work", "usd", "a request")
    rows = (
        (b.name, f"{b.gpus:,.2g}", f"{b.work_hours:,.4g}", usd(b.usd), usd(b.usd_per_request)) for b in bill.baselines
    )
    table(columns, rows, right=columns[1:])
    for baseline in bill.baselines[:-1]:
        say(f"{baseline.name}: {baseline.derived_from}", style="dim")
