"""Live: pages that go on telling: parts of a page made anew every second or two, sent where they have changed.

One stream a page, a bounded number in all, by server-sent events; it ends when the page closes. Without it, or without
scripts, a page is as it was when it was asked for.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lorapool.shared.errors import LorapoolError

if TYPE_CHECKING:
    from lorapool.producer.console.desk import Desk

MOST_STREAMS = 64
PING_S = 15
Context = Mapping[str, Any]
Look = Callable[["Desk", Request], Awaitable[Context]]
Events = AsyncGenerator[ServerSentEvent, None]


class Streams:
    """How many are open in this process."""

    def __init__(self, most: int = MOST_STREAMS) -> None:
        self._most, self._open = most, 0

    def answer(self, events: Events) -> Response:
        """These events, as long as somebody listens. Raises HTTPException where too many streams are open."""
        if self._open >= self._most:
            raise HTTPException(503, "too many pages are open on this console: close some", {"retry-after": "10"})
        return EventSourceResponse(self._counted(events), ping=PING_S)

    async def _counted(self, events: Events) -> Events:
        self._open += 1
        try:
            async for event in events:
                yield event
        finally:
            self._open -= 1
            await events.aclose()


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
