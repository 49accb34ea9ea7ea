"""ApiError: what a request gets instead of its answer, as OpenAI's API writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class ApiError(Exception):
    """``status`` of HTTP; ``kind`` and ``code`` are the words that OpenAI's clients know."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.code, self.param, self.headers = status, kind, code, param, headers

    def body(self) -> dict[str, Any]:
        """As it is sent, in a response or within a stream."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


async def respond(_: Request, error: Exception) -> Response:
    """Starlette's handler of ApiError."""
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), error.status, headers=error.headers)
