"""Live: pages that go on telling: parts of a page made anew every second or two, sent where they have changed.

One stream a page, a bounded number in all, by server-sent events; it ends when the page closes. Without it, or without
scripts, a page is as it was when it was asked for.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sse_starlette import ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lorapool.producer.console.streams import Events
from lorapool.shared.errors import LorapoolError

if TYPE_CHECKING:
    from lorapool.producer.console.desk import Desk

Context = Mapping[str, Any]
Look = Callable[["Desk", Request], Awaitable[Context]]


@dataclass(frozen=True, slots=True)
class LivePage:
    """``parts``: what is told again, by the id of its place and the template that fills it; all from one ``look``."""

    path: str
    template: str
    parts: Mapping[str, str]
    look: Look
    every_s: float = 2.0

    def routes(self, desk: Desk) -> list[BaseRoute]:
        """The page, and what goes on telling of it below ``/live``."""
        stream = f"{self.path.rstrip('/')}/live"
        return [Route(stream, desk.endpoint(self._live)), Route(self.path, desk.endpoint(self._page))]

    async def _page(self, desk: Desk, request: Request) -> Response:
        context = await self.look(desk, request)
        query = f"?{request.url.query}" if request.url.query else ""
        return desk.pages.page(
            request, self.template, parts=self.parts, live=f"{request.url.path.rstrip('/')}/live{query}", **context
        )

    async def _live(self, desk: Desk, request: Request) -> Response:
        return desk.streams.answer(self._events(desk, request))

    async def _events(self, desk: Desk, request: Request) -> Events:
        told: dict[str, str] = {}
        while await desk.may_go_on(request):
            try:
                context = await self.look(desk, request)
            except LorapoolError as error:
                yield ServerSentEvent(str(error), event="trouble")
            else:
                for part, html in self._changed(desk, request, context, told):
                    yield ServerSentEvent(json.dumps({"id": part, "html": html}), event="part")
            await asyncio.sleep(self.every_s)

    def _changed(self, desk: Desk, request: Request, context: Context, told: dict[str, str]) -> list[tuple[str, str]]:
        made = {part: desk.pages.text(request, template, **context) for part, template in self.parts.items()}
        changed = [(part, html) for part, html in made.items() if told.get(part) != html]
        told.update(made)
        return changed
