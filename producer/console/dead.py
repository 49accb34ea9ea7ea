"""Dead letters: jobs that were given up for good, why, and submitting them again: one, or many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from lorapool.producer.console.act import Act, Done
from lorapool.producer.console.figures import count
from lorapool.producer.console.form import Form, asked
from lorapool.shared.errors import InvalidRequest, LorapoolError, RedisUnreachable

if TYPE_CHECKING:
    from lorapool.producer.console.desk import Desk

PAGE_SIZE = 50


async def page(desk: Desk, request: Request) -> Response:
    """Newest first, of an adapter or of all."""
    form = asked(request)
    adapter, cursor = form.text("adapter")[:257], form.text("after")[:64]
    dead = await desk.client.upkeep.dead_page(adapter or None, cursor, PAGE_SIZE)
    glance = await desk.client.onlooker.glance()
    return desk.pages.page(
        request, "dead.html", letters=dead.letters, cursor=dead.cursor, adapter=adapter, total=glance.dead, after=cursor
    )


async def _redrive(desk: Desk, _: Request, form: Form) -> Done:
    """All that were chosen; one that is refused holds up no other."""
    jobs = form.getlist("job")[:500]
    if not jobs:
        raise InvalidRequest("no dead letter was chosen: mark the ones to submit again")
    again, refused = [], []
    for job in jobs:
        try:
            again.append((await desk.client.upkeep.redrive(job)).job_id)
        except RedisUnreachable:
            raise
        except LorapoolError as error:
            refused.append(str(error))
    said = f"{count(len(again))} submitted again" + (f", {len(refused)} refused: {refused[0]}" if refused else "")
    return Done(" ".join(jobs), said, f"/jobs/{again[0]}" if len(jobs) == len(again) == 1 else "/dead")


async def _purge(desk: Desk, _: Request, form: Form) -> Done:
    adapter, hours = form.text("adapter") or None, form.real("hours") or 0.0
    gone = await desk.client.upkeep.purge_dead(adapter, older_than=hours * 3600)
    return Done(adapter or "all", f"{count(gone)} dead letters dropped", "/dead")


ACTS = (
    Act(
        "/dead/redrive",
        "redrove",
        _redrive,
        title="Submit these again?",
        warning="Each request runs as a new job; a repeat finds that job, and makes no second one.",
        button="Submit again",
        fields="fields/redrive.html",
        look="main",
    ),
    Act(
        "/dead/purge",
        "purged dead letters",
        _purge,
        title="Drop dead letters?",
        warning="Their requests are gone for good and can no longer be submitted again.",
        button="Drop them",
        fields="fields/purge.html",
    ),
)
