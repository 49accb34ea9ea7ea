"""Pages: templates made into answers. All that is put in is escaped; what a page needs to know of its reader is here.

A page lies below a base that whoever mounts the console chooses; a notice is what the act before has to say, once.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from lorapool.producer.console.figures import FILTERS, clean

HERE = Path(__file__).parent
ASSETS = HERE / "assets"
NOTICE, NOTICE_S, MAX_NOTICE = "lorapool_notice", 60, 300


class Pages:
    """Of one pool."""

    def __init__(self, pool: str) -> None:
        loader = FileSystemLoader(HERE / "templates")
        self._jinja = Environment(
            loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
            finalize=_shown,
        )  # fmt: skip
        self._jinja.filters.update(FILTERS)
        self._jinja.filters["path"] = lambda text: quote(str(text), safe="@")
        self._jinja.globals.update(pool=pool, asset_mark=_mark())

    def text(self, request: Request, template: str, **context: Any) -> str:
        """A template, filled in."""
        own = {"base": base_of(request), "who": getattr(request.state, "who", None), "now_ms": time.time() * 1000}
        own |= {"here": request.url.path.removeprefix(base_of(request)), "notice": None}
        return self._jinja.get_template(template).render(own | context)

    def page(self, request: Request, template: str, status: int = 200, **context: Any) -> Response:
        """A whole page; it says the notice that waits, if one does."""
        notice = unquote(request.cookies.get(NOTICE, ""))[:MAX_NOTICE] or None
        response = HTMLResponse(self.text(request, template, **{"notice": notice} | context), status)
        if notice:
            response.delete_cookie(NOTICE, path=base_of(request) or "/")
        return response

    def onward(self, request: Request, path: str, notice: str = "") -> Response:
        """Elsewhere, after an act; ``path`` is below the base."""
        response = RedirectResponse(f"{base_of(request)}{path}", 303)
        if notice:
            set_cookie(request, response, NOTICE, quote(notice[:MAX_NOTICE]), NOTICE_S)
        return response


def base_of(request: Request) -> str:
    """Where the console is mounted: empty at the root."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def set_cookie(request: Request, response: Response, name: str, value: str, max_age_s: int) -> None:
    """For this console alone, out of scripts' reach, and sent by our own pages alone."""
    response.set_cookie(
        name, value, max_age=max_age_s, path=base_of(request) or "/", httponly=True, samesite="strict",
        secure=request.url.scheme == "https",
    )  # fmt: skip


def _shown(value: Any) -> Any:
    return clean(value) if type(value) is str else value


def _mark() -> str:
    """Changes with the assets, so that a browser keeps none of another release."""
    digest = hashlib.sha256()
    for path in sorted(ASSETS.iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
