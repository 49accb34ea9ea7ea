"""Agents and keys: who asked how much and what it cost, and the API keys that they ask with.

The bill is made of every agent's and adapter's counters, which lie all over the server: it is asked for when the page
is, never again and again, and given up after a while.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from lorapool.producer.console.act import Act, Done
from lorapool.producer.console.form import Form, asked, posted
from lorapool.producer.operator.cost import Bill, Share
from lorapool.producer.operator.tariff import GPU_USD_PER_HOUR, Tariff

if TYPE_CHECKING:
    from lorapool.producer.console.desk import Desk

MOST_SHOWN, GIVE_UP_S = 20, 10.0


async def page(desk: Desk, request: Request) -> Response:
    """The dearest first."""
    price = asked(request).real("price")
    tariff = Tariff(gpu_usd_per_hour=GPU_USD_PER_HOUR if price is None else price)
    bill = await _bill(desk, tariff)
    shares = await asyncio.to_thread(lambda: (_dearest(bill.agents), _dearest(bill.adapters)) if bill else ([], []))
    return desk.pages.page(
        request,
        "agents.html",
        bill=bill,
        price=tariff.gpu_usd_per_hour,
        agents=shares[0],
        adapters=shares[1],
        keys=await desk.client.keys.list(),
    )


async def _bill(desk: Desk, tariff: Tariff) -> Bill | None:
    """None where the server has too many keys to look through."""
    try:
        async with asyncio.timeout(GIVE_UP_S):
            return await desk.client.cost(tariff)
    except TimeoutError:
        return None


def _dearest(shares: dict[str, Share]) -> list[tuple[str, Share]]:
    return sorted(shares.items(), key=lambda one: (-one[1].estimated_usd, one[0]))[:MOST_SHOWN]


async def add_key(desk: Desk, request: Request) -> Response:
    """The secret stands on this answer and nowhere else. (The key book writes it into the audit stream.)"""
    form = await posted(request)
    limits: dict[str, Any] = {name: form.whole(name) for name in ("jobs_per_minute", "tokens_per_day", "window")}
    name = form.text("name")
    secret = await desk.client.keys.add(
        name,
        agent=form.text("agent") or None,
        adapters=tuple(form.text("adapters").replace(",", " ").split()) or ("*",),
        role="operator" if form.text("role") == "operator" else "agent",
        by=request.state.who,
        **limits,
    )
    return desk.pages.page(request, "new_key.html", name=name, secret=secret)


async def _revoke(desk: Desk, request: Request, _: Form) -> Done:
    name = request.path_params["name"]
    await desk.client.keys.revoke(name, by=request.state.who)
    return Done(name, f"key {name} is revoked", "/agents")


ACTS = (
    Act(
        "/keys/{name}/revoke",
        "revoked key",
        _revoke,
        title="Revoke this key?",
        warning="Whoever has it can ask nothing any more, from this moment on. What they have submitted goes on.",
        button="Revoke",
    ),
)
