"""The trail: who did what to the pool, when, and with what outcome; from here, from the command line, by keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from lorapool.producer.console.form import asked

if TYPE_CHECKING:
    from lorapool.producer.console.desk import Desk

SHOWN = 200


async def page(desk: Desk, request: Request) -> Response:
    """The latest first; of one name, if that is asked for."""
    wanted = asked(request).text("who")
    acts = await desk.client.audit.recent(1000 if wanted else SHOWN)
    kept = [act for act in acts if wanted in {"", act.who}][:SHOWN]
    return desk.pages.page(request, "trail.html", acts=kept, wanted=wanted)
