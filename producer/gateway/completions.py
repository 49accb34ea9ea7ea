"""``/v1/chat/completions`` and ``/v1/completions``: asked, answered at once or as a stream, gone on with, read again.

What is asked is made of requests by chat_input.py and completion_input.py; what comes of it is here the same for both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from lorapool.producer.client.client import Client
from lorapool.producer.client.record import Record
from lorapool.producer.client.request import Request
from lorapool.producer.gateway.answer import proof_headers
from lorapool.producer.gateway.asking import Asked, results_of, submit
from lorapool.producer.gateway.body import json_body
from lorapool.producer.gateway.caller import caller_of
from lorapool.producer.gateway.chat_input import chat_completion, chat_request
from lorapool.producer.gateway.chunks import ChatForm, Form, PlainForm, Stream
from lorapool.producer.gateway.completion_id import CHAT, PLAIN, CompletionId
from lorapool.producer.gateway.completion_input import completion_answer, completion_request, echoes, prompts_of
from lorapool.producer.gateway.cursor import Place, places_of
from lorapool.producer.gateway.errors import ApiError
from lorapool.producer.gateway.fields import given, metadata_of
from lorapool.producer.gateway.sse import EventStream
from lorapool.shared.catalog.adapter_record import AdapterRecord
from lorapool.shared.errors import ResultExpired, UnknownJob
from lorapool.shared.job import Result
from lorapool.shared.malformed import number

GONE = Response(status_code=499)  # nobody reads it
Written = Callable[[Sequence[Result]], dict[str, Any]]


async def chat(http: HttpRequest) -> ASGIApp:
    """``POST /v1/chat/completions``."""
    body = await json_body(http)
    limit = http.app.state.settings.default_max_tokens
    requests = chat_request(body, caller_of(http), default_max_tokens=limit)
    asked = await _asked(http, CHAT, requests, body)
    facts = _facts(asked, body)
    if body.get("stream"):
        return _streamed(http, asked, body, ChatForm())
    return await _whole(http, asked, lambda results: chat_completion(results, **facts))


async def plain(http: HttpRequest) -> ASGIApp:
    """``POST /v1/completions``."""
    body = await json_body(http)
    requests = completion_request(body, caller_of(http))
    asked = await _asked(http, PLAIN, requests, body)
    prompts = len(prompts_of(body))
    echoed = [request.prompt or "" for request in requests] if echoes(given(body)) else []
    facts: dict[str, Any] = {**_facts(asked, body), "prompts": prompts, "echoed": echoed}
    if body.get("stream"):
        return _streamed(http, asked, body, PlainForm(echoed), prompts)
    return await _whole(http, asked, lambda results: completion_answer(results, **facts))


async def again(http: HttpRequest) -> ASGIApp:
    """``GET …/{id}``: the answer to a request made before, waited for if it has not ended."""
    asked, records = await _known(http)
    facts: dict[str, Any] = {"completion_id": str(asked.id), "model": asked.record.ref, "created": _created(records)}
    written: Written = lambda results: chat_completion(results, **facts)  # noqa: E731
    if asked.id.kind == PLAIN:
        written = lambda results: completion_answer(results, **facts)  # noqa: E731
    return await _whole(http, asked, written)


async def stream_again(http: HttpRequest) -> ASGIApp:
    """``GET …/{id}/stream``: the stream of a request made before, from ``Last-Event-ID`` on."""
    asked, records = await _known(http)
    form: Form = ChatForm() if asked.id.kind == CHAT else PlainForm()
    stream = Stream(
        asked.id,
        form,
        asked.record.ref,
        asked.record.digest,
        _created(records),
        asked.handles,
        include_usage=http.query_params.get("include_usage") in ("true", "1"),
        had=_had(http, asked.id),
    )
    return EventStream(stream.events(http.app.state.settings.ping_s), headers=asked.headers)


async def call_back(http: HttpRequest) -> Response:
    """``DELETE …/{id}``: its jobs are cancelled."""
    asked, _ = await _known(http)
    states = [await handle.cancel() for handle in asked.handles]
    ended = all(state.terminal for state in states)
    return JSONResponse({"id": str(asked.id), "object": "completion.cancelled", "cancelled": ended})


async def _asked(http: HttpRequest, kind: str, requests: Sequence[Request], body: Mapping[str, Any]) -> Asked:
    """Submitted; or found, where the request says by ``Last-Event-ID`` that it was made before."""
    last = http.headers.get("last-event-id")
    if not last or "idempotency-key" in http.headers:
        return await submit(http, kind, requests, body)
    before = CompletionId.parse(last.partition(":")[0])
    await _records(http, before)
    return await submit(http, kind, requests, body, before=before)


async def _known(http: HttpRequest) -> tuple[Asked, Sequence[Record]]:
    """The jobs behind an id. Raises ApiError: 404 for what is nobody's, or not the caller's."""
    answer_id = CompletionId.parse(http.path_params["id"])
    records = await _records(http, answer_id)
    client: Client = http.app.state.client
    ref, _, version = _text(records[0], "ref").partition("@")
    record = AdapterRecord(id=ref, version=version, digest=_text(records[0], "digest"), uri="")
    return Asked(answer_id, record, [client.get(job_id) for job_id in answer_id.jobs], keep=True), records


async def _records(http: HttpRequest, answer_id: CompletionId) -> Sequence[Record]:
    client: Client = http.app.state.client
    try:
        records = [await client.get(job_id).record() for job_id in answer_id.jobs]
    except (UnknownJob, ResultExpired):
        records = []
    if not records or not all(caller_of(http).may_read(_text(record, "agent")) for record in records):
        raise ApiError(404, f"no completion {str(answer_id)!r}: never asked here, or kept no longer", code="not_found")
    return records


async def _whole(http: HttpRequest, asked: Asked, written: Written) -> Response:
    results = await results_of(http, asked)
    return GONE if results is None else JSONResponse(written(results), headers=proof_headers(results))


def _streamed(http: HttpRequest, asked: Asked, body: Mapping[str, Any], form: Form, prompts: int = 1) -> EventStream:
    stream = Stream(
        asked.id,
        form,
        body["model"],
        asked.record.digest,
        int(time.time()),
        asked.handles,
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        prompts=prompts,
        had=_had(http, asked.id),
        metadata=metadata_of(body),
    )
    on_gone = None if asked.keep else asked.call_back
    return EventStream(stream.events(http.app.state.settings.ping_s), headers=asked.headers, on_gone=on_gone)


def _had(http: HttpRequest, answer_id: CompletionId) -> Sequence[Place]:
    """What the reader has, by its ``Last-Event-ID``."""
    last = http.headers.get("last-event-id")
    if not last:
        return ()
    name, _, places = last.partition(":")
    if name != str(answer_id):
        raise ApiError(400, f"Last-Event-ID: {last[:60]!r} is of another stream", param="Last-Event-ID")
    return places_of(places, answer_id.answers)


def _facts(asked: Asked, body: Mapping[str, Any]) -> dict[str, Any]:
    facts = {"completion_id": str(asked.id), "model": body["model"], "created": int(time.time())}
    return {**facts, "metadata": metadata_of(body)}


def _created(records: Sequence[Record]) -> int:
    return int(number(records[0].get("submitted_ms"))) // 1000


def _text(record: Record, name: str) -> str:
    value = record.get(name, "")
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def routes() -> list[BaseRoute]:
    """Its part of the app."""
    both: list[BaseRoute] = []
    for path, ask in (("/v1/chat/completions", chat), ("/v1/completions", plain)):
        both += [
            Route(path, ask, methods=["POST"]),
            Route(f"{path}/{{id}}", again, methods=["GET"]),
            Route(f"{path}/{{id}}", call_back, methods=["DELETE"]),
            Route(f"{path}/{{id}}/stream", stream_again, methods=["GET"]),
        ]
    return both
