"""Signing in and out: an operator's key for a session. The key itself is kept nowhere, the cookie is a random token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from lorapool.producer.console.desk import LOCAL, SESSION
from lorapool.producer.console.form import asked, posted
from lorapool.producer.console.pages import base_of, set_cookie
from lorapool.shared.access.sessions import SESSION_S

if TYPE_CHECKING:
    from lorapool.producer.console.desk import Desk


async def page(desk: Desk, request: Request) -> Response:
    """Where to put the key; onward for those who have a session, or need none."""
    onward = _onward(asked(request).text("to"))
    if await desk.who(request) is not None:
        return desk.pages.onward(request, onward)
    return desk.pages.page(request, "sign_in.html", to=onward, refused=False)


async def enter(desk: Desk, request: Request) -> Response:
    """A session for an operator's key; whatever else is put there is refused in the same words."""
    form = await posted(request)
    onward, key = _onward(form.text("to")), await desk.client.keys.find(form.text("key"))
    if key is None or key.role != "operator":
        if key is not None:
            await desk.client.audit.record(
                key.name, "signed in", "console", outcome="refused", note="no operator's key"
            )
        return desk.pages.page(request, "sign_in.html", 403, to=onward, refused=True)
    token = await desk.client.sessions.begin(key)
    await desk.client.audit.record(key.name, "signed in", "console")
    response = desk.pages.onward(request, onward)
    set_cookie(request, response, SESSION, token, SESSION_S)
    return response


async def leave(desk: Desk, request: Request) -> Response:
    """End the session, here and on the server."""
    await desk.client.sessions.end(request.cookies.get(SESSION, ""))
    if request.state.who != LOCAL:
        await desk.client.audit.record(request.state.who, "signed out", "console")
    response = desk.pages.onward(request, "/sign-in")
    response.delete_cookie(SESSION, path=base_of(request) or "/")
    return response


def _onward(path: str) -> str:
    """A page of this console, and nothing else: ``//evil`` is another host's."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) and "\n" not in path else "/"
