"""``/v1/responses``: made, retrieved, streamed again, cancelled, deleted; and what was put in.

A response's record is stored before its job is queued: what is accepted can be found. Knows HTTP and how the parts go
together; what a request says is in request.py, what is answered in answer.py and events.py.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from lorapool.producer.client.client import Client
from lorapool.producer.client.request import Request
from lorapool.producer.gateway.answer import proof_headers
from lorapool.producer.gateway.asking import Asked, outlasting, results_of, submit
from lorapool.producer.gateway.body import json_body
from lorapool.producer.gateway.caller import caller_of
from lorapool.producer.gateway.completion_id import CompletionId
from lorapool.producer.gateway.errors import ApiError
from lorapool.producer.gateway.models import models_of
from lorapool.producer.gateway.responses import answer
from lorapool.producer.gateway.responses.items import Item, messages_of, with_ids
from lorapool.producer.gateway.responses.request import CreateRequest, create_request, refused
from lorapool.producer.gateway.responses.stored import find, stored
from lorapool.producer.gateway.responses.telling import Telling
from lorapool.producer.gateway.sse import EventStream
from lorapool.shared.errors import Fate, LorapoolError
from lorapool.shared.job import JobState
from lorapool.shared.responses.response_record import ResponseRecord
from lorapool.shared.responses.responses import RESPONSE_WAITS_S

GONE = Response(status_code=499)  # nobody reads it
LETS_GO_S = 5.0  # so long a worker may take to let go of what is cancelled
KIND = "resp"


async def create(http: HttpRequest) -> ASGIApp:
    """``POST /v1/responses``."""
    limit = http.app.state.settings.default_max_tokens
    request = create_request(await json_body(http), caller_of(http), default_max_tokens=limit)
    record, asked = await _asked(http, request)
    if request.stream:
        on_gone = None if asked.keep or request.background else asked.call_back
        return _streamed(http, Telling(record, asked.handles[0]), asked.headers, on_gone)
    if request.background:
        found = await find(http.app.state.client, caller_of(http), answer.response_id(record.id))
        body = found.body() if found else answer.unfinished(record, JobState.QUEUED)
        return JSONResponse(body, headers=asked.headers)
    results = await results_of(http, asked)
    if results is None:
        return GONE
    return JSONResponse(answer.finished(record, results[0]), headers=proof_headers(results))


async def retrieve(http: HttpRequest) -> ASGIApp:
    """``GET /v1/responses/{id}``: as it stands; with ``stream=true`` its events, those after ``starting_after``."""
    after = _after(http)
    found = await stored(http)
    if http.query_params.get("stream") in ("true", "1"):
        return _streamed(http, Telling(found.record, found.handle, after), {})
    return JSONResponse(found.body())


async def cancel(http: HttpRequest) -> Response:
    """``POST /v1/responses/{id}/cancel``: one that has ended stays as it is."""
    found = await stored(http)
    if await found.handle.cancel() is JobState.RUNNING:
        with suppress(LorapoolError):
            await found.handle.result(LETS_GO_S)
    return JSONResponse((await stored(http)).body())


async def delete(http: HttpRequest) -> Response:
    """``DELETE /v1/responses/{id}``: it is found no more; what has not ended is cancelled."""
    found = await stored(http)
    client: Client = http.app.state.client
    await client.responses.forget(found.record.id)
    if not found.state.terminal:
        await found.handle.cancel()
    return JSONResponse({"id": answer.response_id(found.record.id), "object": "response", "deleted": True})


async def list_input_items(http: HttpRequest) -> Response:
    """``GET /v1/responses/{id}/input_items``: what was put in, the latest first unless ``order`` is ``asc``."""
    items = list((await stored(http)).record.items)
    order = http.query_params.get("order", "desc")
    if order not in ("asc", "desc"):
        raise refused("order", order, "expected asc or desc")
    page, more = _page(items if order == "asc" else items[::-1], http)
    ends = {"first_id": page[0]["id"] if page else "", "last_id": page[-1]["id"] if page else ""}
    return JSONResponse({"object": "list", "data": page, "has_more": more, **ends})


async def _asked(http: HttpRequest, request: CreateRequest) -> tuple[ResponseRecord, Asked]:
    """The record, stored if it is to be, and then the job. What is refused leaves no record."""
    client: Client = http.app.state.client
    caller, key, options = caller_of(http), http.headers.get("idempotency-key"), request.options
    await models_of(http).find(options["adapter"], caller)
    items = [*await _before(http, request), *request.items]
    response_id = CompletionId.new(KIND, 1, key, caller)
    record = ResponseRecord(
        id=response_id.stem,
        agent=options["agent"],
        created_ms=round(time.time() * 1000),
        background=request.background,
        echo=request.echo,
        items=tuple(with_ids(items, response_id.stem)),
    )
    new = False
    if request.store:
        until = time.monotonic() + http.app.state.settings.away_s
        record, new = await outlasting(until, lambda: client.responses.keep(record))
    try:
        return record, await submit(http, KIND, [_job(request, items)], request.echo, before=response_id)
    except (ApiError, LorapoolError) as error:
        if new and getattr(error, "fate", None) is not Fate.UNKNOWN:
            with suppress(LorapoolError):
                await client.responses.forget(record.id)
        raise


def _job(request: CreateRequest, items: Sequence[Item]) -> Request:
    options = {**request.options, "stream": request.stream or request.background}
    options["deadline"] = options["deadline"] or RESPONSE_WAITS_S
    return Request(messages=messages_of(items, request.instructions), params=request.params, **options)


async def _before(http: HttpRequest, request: CreateRequest) -> list[Item]:
    """The turns that this one goes on from."""
    if request.previous is None:
        return []
    found = await find(http.app.state.client, caller_of(http), request.previous)
    if found is None:
        message = f"Previous response with id {request.previous[:160]!r} not found."
        raise ApiError(400, message, param="previous_response_id", code="previous_response_not_found")
    return found.turn()


def _streamed(http: HttpRequest, telling: Telling, headers: dict[str, str], on_gone: Any = None) -> EventStream:
    return EventStream(telling.events(http.app.state.settings.ping_s), headers=headers, on_gone=on_gone)


def _after(http: HttpRequest) -> int:
    name = "starting_after" if "starting_after" in http.query_params else "last-event-id"
    given = http.query_params.get(name) or http.headers.get("last-event-id") or ""
    if given and not (given.isdecimal() and given.isascii() and len(given) <= 12):
        raise refused(name, given, "expected the sequence_number of an event")
    return int(given) if given else -1


def _page(items: list[Item], http: HttpRequest) -> tuple[list[Item], bool]:
    given, after = http.query_params.get("limit", "20"), http.query_params.get("after")
    if not (given.isdecimal() and given.isascii() and len(given) <= 3 and 1 <= int(given) <= 100):
        raise refused("limit", given, "expected a whole number from 1 to 100")
    start = 0
    if after is not None:
        start = next((place + 1 for place, item in enumerate(items) if item["id"] == after), len(items))
    size = int(given)
    return items[start : start + size], len(items) > start + size


def routes() -> list[BaseRoute]:
    """What is served here."""
    return [
        Route("/v1/responses", create, methods=["POST"]),
        Route("/v1/responses/{id}", retrieve, methods=["GET"]),
        Route("/v1/responses/{id}", delete, methods=["DELETE"]),
        Route("/v1/responses/{id}/cancel", cancel, methods=["POST"]),
        Route("/v1/responses/{id}/input_items", list_input_items, methods=["GET"]),
    ]
