"""Schedules: jobs that recur, or are to run once at a given time: listed, added, removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from lorapool.producer.console.act import Act, Done
from lorapool.producer.console.form import Form

if TYPE_CHECKING:
    from lorapool.producer.console.desk import Desk

MOST_SHOWN = 200


async def page(desk: Desk, request: Request) -> Response:
    """The next run first."""
    schedules = desk.client.schedules
    entries, watched = await schedules.list(), await schedules.watched()
    return desk.pages.page(request, "schedules.html", entries=entries[:MOST_SHOWN], total=len(entries), watched=watched)


async def _add(desk: Desk, _: Request, form: Form) -> Done:
    params: dict[str, Any] = {name: value for name in ("max_new_tokens",) if (value := form.whole(name)) is not None}
    adapter = form.text("adapter")
    entry = await desk.client.schedules.add(
        None if adapter == "_base" else adapter,
        messages=[{"role": "user", "content": form.text("prompt")}],
        cron=form.text("cron") or None,
        at=form.text("at") or None,
        tz=form.text("tz") or "UTC",
        name=form.text("name") or None,
        agent=form.text("agent") or None,
        **params,
    )
    return Done(entry.name, f"{entry.name} is added; its next run is {entry.shown(entry.next_ms or 0)}", "/schedules")


async def _remove(desk: Desk, request: Request, _: Form) -> Done:
    name = request.path_params["name"]
    await desk.client.schedules.remove(name)
    return Done(name, f"{name} is removed", "/schedules")


ACTS = (
    Act("/schedules", "added schedule", _add),
    Act(
        "/schedules/{name}/remove",
        "removed schedule",
        _remove,
        title="Remove this schedule?",
        warning="It makes no more runs. Jobs that it has made go on.",
        button="Remove",
    ),
)
