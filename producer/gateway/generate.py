"""LoRAX's and TGI's API: ``/generate``, ``/generate_stream``, ``/`` (either, by ``stream``), ``/info``.

A request without ``adapter_id`` asks the base model, as LoRAX's does. Errors are in their form, not OpenAI's.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from lorapool.producer.gateway.answer import proof_headers
from lorapool.producer.gateway.asking import Asked, results_of, submit
from lorapool.producer.gateway.body import json_body
from lorapool.producer.gateway.caller import caller_of
from lorapool.producer.gateway.completion_id import PLAIN
from lorapool.producer.gateway.cursor import Cursor, Piece
from lorapool.producer.gateway.errors import ApiError, of_error
from lorapool.producer.gateway.fields import flag, given
from lorapool.producer.gateway.following import followed
from lorapool.producer.gateway.generate_input import check_fields, generate_request, parameters_of
from lorapool.producer.gateway.models import models_of
from lorapool.producer.gateway.sse import EventStream, event
from lorapool.shared import __version__
from lorapool.shared.errors import LorapoolError
from lorapool.shared.job import FinishReason, Result, TokenLogprob

GONE = Response(status_code=499)  # nobody reads it
PING = b": waiting\n\n"
_KINDS = {400: (422, "validation"), 413: (413, "validation"), 429: (429, "overloaded"), 500: (424, "generation")}
Handler = Callable[[HttpRequest], Awaitable[ASGIApp]]


def told(handler: Handler) -> Handler:
    """The same, with errors as LoRAX's clients read them."""

    async def answered(http: HttpRequest) -> ASGIApp:
        try:
            return await handler(http)
        except (ApiError, LorapoolError) as error:
            known = of_error(error)
            status, body = _refusal(known)
            return JSONResponse(body, status, headers=known.headers)

    return answered


@told
async def generate(http: HttpRequest) -> ASGIApp:
    """``POST /generate``: one answer."""
    asked, parameters, inputs = await _asked(http, stream=False)
    results = await results_of(http, asked)
    if results is None:
        return GONE
    return JSONResponse(_generated(results[0], parameters, inputs), headers=proof_headers(results))


@told
async def generate_stream(http: HttpRequest) -> ASGIApp:
    """``POST /generate_stream``: an event a token."""
    asked, parameters, inputs = await _asked(http, stream=True)
    events = _events(asked, parameters, inputs, http.app.state.settings.ping_s)
    return EventStream(events, headers=asked.headers, on_gone=None if asked.keep else asked.call_back)


@told
async def either(http: HttpRequest) -> ASGIApp:
    """``POST /``: which of both is the body's word; the one answer in a list."""
    if flag(given(await json_body(http)), "stream"):
        return await generate_stream(http)
    asked, parameters, inputs = await _asked(http, stream=False)
    results = await results_of(http, asked)
    if results is None:
        return GONE
    return JSONResponse([_generated(results[0], parameters, inputs)], headers=proof_headers(results))


@told
async def info(http: HttpRequest) -> ASGIApp:
    """``GET /info``: what serves here."""
    base, settings = await models_of(http).base(), http.app.state.settings
    return JSONResponse(
        {
            "model_id": base.name,
            "model_sha": base.digest or None,
            "model_pipeline_tag": "text-generation",
            "max_concurrent_requests": settings.max_connections,
            "max_best_of": 1,
            "max_stop_sequences": 16,
            "router": "lorapool",
            "version": __version__,
        }
    )


async def _asked(http: HttpRequest, *, stream: bool) -> tuple[Asked, Mapping[str, Any], str]:
    body = given(await json_body(http))
    check_fields(body)
    parameters = parameters_of(body)
    limit = http.app.state.settings.default_max_tokens
    request = generate_request(body, parameters, caller_of(http), default_max_tokens=limit, stream=stream)
    return await submit(http, PLAIN, [request], parameters), parameters, body["inputs"]


def _generated(result: Result, parameters: Mapping[str, Any], inputs: str) -> dict[str, Any]:
    answer: dict[str, Any] = {"generated_text": _text(result, parameters, inputs)}
    if parameters.get("details"):
        tokens = [_token(token) for token in result.token_logprobs or ()]
        if tokens and result.finish_reason is FinishReason.EOS_TOKEN:
            tokens[-1]["special"] = True
        answer["details"] = {**_details(result), "prefill": [], "tokens": tokens, "best_of_sequences": None}
    return answer


async def _events(
    asked: Asked, parameters: Mapping[str, Any], inputs: str, ping_s: float
) -> AsyncGenerator[bytes, None]:
    """A token each; at last a special one of no text, with the whole and how it ended."""
    cursor, following = Cursor(), followed(asked.handles, ping_s)
    try:
        async for batch in following:
            events = []
            for _, what in batch:
                piece = cursor.rest(what) if isinstance(what, Result) else cursor.take(what)
                events += [_event(token) for token in _tokens(piece)]
                if isinstance(what, Result):
                    whole = {"generated_text": _text(what, parameters, inputs), "details": _details(what)}
                    events.append(_event(_bare("", special=True), **whole))
            yield b"".join(events) or PING
    except Exception as error:  # noqa: BLE001 - told to the client, in the stream
        yield event(json.dumps(_refusal(of_error(error))[1]))
    finally:
        await following.aclose()


def _tokens(piece: Piece) -> list[dict[str, Any]]:
    """The text of several tokens comes with the last of them, as it was written."""
    if not piece.logprobs:
        return [_bare(piece.text)] if piece.text else []
    *before, last = piece.logprobs
    return [*(_token(token) | {"text": ""} for token in before), _token(last) | {"text": piece.text}]


def _event(token: dict[str, Any], **whole: Any) -> bytes:
    return event(json.dumps({"token": token, "generated_text": None, "details": None, **whole}))


def _token(token: TokenLogprob) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": token.id, "text": token.text.decode(errors="replace")}
    shown |= {"logprob": token.logprob, "special": False}
    if token.top:
        shown["alternative_tokens"] = [
            {"id": top.id, "text": top.text.decode(errors="replace"), "logprob": top.logprob} for top in token.top
        ]
    return shown


def _bare(text: str, *, special: bool = False) -> dict[str, Any]:
    """A token of which no more is known."""
    return {"id": -1, "text": text, "logprob": 0.0, "special": special}


def _details(result: Result) -> dict[str, Any]:
    return {
        "finish_reason": result.finish_reason.value,
        "prompt_tokens": result.usage.prompt_tokens,
        "generated_tokens": result.usage.completion_tokens,
        "seed": result.seed,
    }


def _text(result: Result, parameters: Mapping[str, Any], inputs: str) -> str:
    return inputs + result.text if parameters.get("return_full_text") else result.text


def _refusal(error: ApiError) -> tuple[int, dict[str, Any]]:
    status, kind = _KINDS.get(error.status, (error.status, error.code or error.kind))
    return status, {"error": str(error), "error_type": kind}


def routes() -> list[BaseRoute]:
    """Its part of the app."""
    asked = {"/generate": generate, "/generate_stream": generate_stream, "/": either}
    return [
        *(Route(path, handler, methods=["POST"]) for path, handler in asked.items()),
        Route("/info", info, methods=["GET"]),
    ]
