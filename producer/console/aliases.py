"""Aliases: where a name points, where it pointed before, and moving it: to another version, or back."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response

from lorapool.producer.console.act import Act, Done
from lorapool.producer.console.adapters import rows_of
from lorapool.producer.console.form import Form, asked
from lorapool.shared.errors import UnknownAdapter
from lorapool.shared.job import check_name

if TYPE_CHECKING:
    from lorapool.producer.console.desk import Desk

MOST_CHOICES = 50


async def page(desk: Desk, request: Request) -> Response:
    """The name's target, the versions that it may be moved to, and its latest moves."""
    adapters = desk.client.adapters
    name = check_name("alias", request.path_params["name"]).casefold()
    target, moves = (await adapters.aliases()).get(name), await adapters.history(name)
    if target is None and not moves:
        raise UnknownAdapter(f"no alias {name!r} in this pool")
    known = target or next((move.before for move in moves if move.before), "")
    refs = [ref for ref in await adapters.refs() if ref.partition("@")[0] == known.partition("@")[0]]
    rows, canary = await rows_of(desk.client, refs[-MOST_CHOICES:]), (await adapters.canaries()).get(name)
    return desk.pages.page(request, "alias.html", name=name, target=target, canary=canary, moves=moves, versions=rows)


async def _move(desk: Desk, request: Request, form: Form) -> Done:
    name = request.path_params["name"]
    record = await desk.client.adapters.alias(name, form.text("to"))
    return Done(name, f"{name} points at {record.ref}", f"/aliases/{name}")


async def _canary(desk: Desk, request: Request, form: Form) -> Done:
    name, ref, percent = request.path_params["name"], form.text("to"), form.whole("percent")
    await desk.client.adapters.canary(name, ref, percent or 0)
    said = f"{percent} % of what {name} is asked goes to {ref}" if percent else f"{name} has no canary any more"
    return Done(name, said, f"/aliases/{name}")


async def _roll_back(desk: Desk, request: Request, _: Form) -> Done:
    name = request.path_params["name"]
    record = await desk.client.adapters.rollback(name)
    return Done(name, f"{name} points back at {record.ref}", f"/aliases/{name}")


ACTS = (
    Act(
        "/aliases/{name}/move",
        "moved alias",
        _move,
        title="Move this alias?",
        warning="All who ask by this name get the other version within a second; jobs that were submitted keep theirs.",
        button="Move",
        fields="fields/move.html",
        look="main",
    ),
    Act(
        "/aliases/{name}/canary",
        "set canary",
        _canary,
        title="Let a part go to another version?",
        warning="Which jobs follows from their ids; moving the alias, or rolling it back, ends it.",
        button="Let it",
        fields="fields/canary.html",
        look="main",
    ),
    Act(
        "/aliases/{name}/rollback",
        "rolled back alias",
        _roll_back,
        title="Roll this alias back?",
        warning="It points at its latest earlier version that still serves, within a second; again goes further back.",
        button="Roll back",
    ),
)


async def choose(desk: Desk, request: Request) -> Response:
    """From a form that names an alias and a version: to the question."""
    form = asked(request)
    name, to = form.text("name")[:257], form.text("to")[:257]
    return desk.pages.onward(request, f"/aliases/{quote(name, safe='')}/move?{urlencode({'to': to})}")
