"""What this gateway does not serve, said as OpenAI's API says it: 404, and why."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from lorapool.producer.gateway.errors import ApiError

_WHY: Mapping[str, str] = {
    "embeddings": "the pool's base model writes text, and embeds none",
    "images": "the pool's base model writes text alone",
    "audio": "the pool's base model writes text alone",
    "videos": "the pool's base model writes text alone",
    "realtime": "the pool's base model writes text alone",
    "moderations": "no moderation model is part of a pool",
    "fine_tuning": "adapters are trained elsewhere and registered: `lorapool adapters register`",
    "assistants": "use /v1/chat/completions or /v1/responses",
    "threads": "use /v1/chat/completions or /v1/responses",
    "vector_stores": "a pool stores no documents",
    "uploads": "use /v1/files",
    "evals": "a pool judges no answers",
    "rerank": "the pool's base model writes text, and ranks none",
    "messages": "use /v1/chat/completions",
}


async def not_served(request: Request) -> Response:
    """Whatever is below /v1 and nothing of ours."""
    path: str = request.path_params["path"]
    why = _WHY.get(path.partition("/")[0], "GET /openapi.json lists what is")
    raise ApiError(404, f"{request.method} /v1/{path[:80]} is not served: {why}", code="not_served")


async def respond(_: Request, error: Exception) -> Response:
    """Starlette's handler of what its router says: no such path, no such method."""
    assert isinstance(error, HTTPException)
    known = ApiError(error.status_code, f"{error.detail}: GET /openapi.json lists what is served", code="not_served")
    return JSONResponse(known.body(), error.status_code, headers=error.headers)


def routes() -> list[BaseRoute]:
    """Its part of the app."""
    return [Route("/v1/{path:path}", not_served, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])]
