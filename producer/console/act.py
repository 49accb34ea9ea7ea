"""Act: what an operator does to a pool by a page: asked for once, done, written down with who did it.

The question is a page of its own, which a browser with scripts shows in a dialog; its form alone does the act. Harmless
acts go without the question. All are in the audit stream, failed ones too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lorapool.producer.console.form import Form, asked, posted
from lorapool.shared.errors import LorapoolError

if TYPE_CHECKING:
    from lorapool.producer.console.desk import Desk


class Done(NamedTuple):
    """``on`` what it was done, what there is to say of it, and where to go on."""

    on: str
    said: str
    onward: str


@dataclass(frozen=True, slots=True)
class Act:
    """``what``: in the audit stream's past tense. ``title``, ``warning`` and ``button`` are the question's; ``fields``
    a template with more to fill in; ``look`` how the button looks."""

    path: str
    what: str
    perform: Callable[[Desk, Request, Form], Awaitable[Done]]
    title: str = ""
    warning: str = ""
    button: str = ""
    fields: str = ""
    look: str = "danger"

    def routes(self, desk: Desk) -> list[BaseRoute]:
        """The question, if there is one, and the act."""
        routes: list[BaseRoute] = [Route(self.path, desk.endpoint(self._perform), methods=["POST"])]
        return [*routes, Route(self.path, desk.endpoint(self._ask))] if self.title else routes

    async def _ask(self, desk: Desk, request: Request) -> Response:
        form = asked(request)
        jobs = form.getlist("job")
        subject = str(next(iter(request.path_params.values()), "")) or (jobs[0] if len(jobs) == 1 else "")
        kept = [(name, value) for name, value in form.multi_items() if value]
        return desk.pages.page(request, "ask.html", act=self, subject=subject, kept=kept, form=form)

    async def _perform(self, desk: Desk, request: Request) -> Response:
        form, audit, who = await posted(request), desk.client.audit, request.state.who
        try:
            done = await self.perform(desk, request, form)
        except LorapoolError as error:
            on = str(next(iter(request.path_params.values()), ""))
            await audit.record(who, self.what, on, outcome=type(error).__name__, note=str(error))
            raise
        await audit.record(who, self.what, done.on, note=done.said)
        return desk.pages.onward(request, done.onward, done.said)
