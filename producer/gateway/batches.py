"""``/v1/batches``: made of a stored file, listed, shown, cancelled. What is another agent's is not there.

Whoever feeds batches (feeding.py) carries them out, here or in another gateway.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from lorapool.producer.batches.window import window_s, window_text
from lorapool.producer.client.client import Client
from lorapool.producer.gateway.batch_door import ENDPOINTS
from lorapool.producer.gateway.body import json_body
from lorapool.producer.gateway.caller import caller_of
from lorapool.producer.gateway.completion_id import keyed
from lorapool.producer.gateway.errors import ApiError, invalid
from lorapool.producer.gateway.feeding import Feeding
from lorapool.producer.gateway.fields import check_known, given, metadata_of, shown
from lorapool.producer.gateway.files import found as found_file
from lorapool.producer.gateway.files import listed, owner, page_of
from lorapool.shared.batches.batch_record import BatchRecord, BatchStatus
from lorapool.shared.errors import UnknownBatch, UnknownFile

MAX_LISTED = 100
_KNOWN = ("input_file_id", "endpoint", "completion_window", "metadata")
_STAMPS = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")


async def create(request: Request) -> Response:
    """``POST /v1/batches``; the same ``Idempotency-Key`` again is the same batch."""
    fields, caller = given(await json_body(request)), caller_of(request)
    key = request.headers.get("idempotency-key")
    check_known(fields, _KNOWN, {"output_expires_after": lambda value: value == {}})
    file = await _input_file(request, fields)
    batch = BatchRecord(
        id=f"batch_{secrets.token_hex(12) if key is None else keyed(key, caller)}",
        agent=caller.agent,
        key=caller.key,
        adapters=caller.adapters,
        operator=caller.operator,
        endpoint=_endpoint(fields),
        input_file=file,
        window_s=window_s(fields.get("completion_window")),
        metadata=metadata_of(fields) or {},
        status=BatchStatus.VALIDATING,
    )
    client: Client = request.app.state.client
    try:
        made = await client.batches.add(batch)
    except UnknownFile as error:
        raise invalid(str(error), param="input_file_id") from None
    if (made.input_file, made.endpoint, made.agent) != (batch.input_file, batch.endpoint, batch.agent):
        raise ApiError(422, "this Idempotency-Key made another batch", code="idempotency_key_reused")
    feeding: Feeding = request.app.state.feeding
    feeding.stir()
    return JSONResponse(_shown(made))


async def list_batches(request: Request) -> Response:
    """``GET /v1/batches``: newest first."""
    client: Client = request.app.state.client
    records, more = await client.batches.page(owner(caller_of(request)), **page_of(request, MAX_LISTED, 20))
    return listed([_shown(record) for record in records], more=more)


async def show(request: Request) -> Response:
    """``GET /v1/batches/{id}``."""
    return JSONResponse(_shown(await _found(request)))


async def cancel(request: Request) -> Response:
    """``POST /v1/batches/{id}/cancel``: one that has ended stays as it is, and says so."""
    batch = await _found(request)
    client: Client = request.app.state.client
    status = await client.batches.cancel(batch.id)
    if status not in {BatchStatus.CANCELLING, BatchStatus.CANCELLED}:
        raise invalid(f"Cannot cancel a batch with status '{status.value}'", code="invalid_status")
    return JSONResponse(_shown(await client.batches.get(batch.id)))


async def _found(request: Request) -> BatchRecord:
    client: Client = request.app.state.client
    batch_id = request.path_params["id"]
    try:
        batch = await client.batches.get(batch_id)
    except UnknownBatch:
        batch = None
    if batch is None or not caller_of(request).may_read(batch.agent):
        raise ApiError(404, f"No batch found with id '{batch_id[:80]}'.", param="id", code="not_found")
    return batch


async def _input_file(request: Request, fields: Mapping[str, Any]) -> str:
    file_id = fields.get("input_file_id")
    if not isinstance(file_id, str):
        raise invalid(f"input_file_id = {shown(file_id)}: expected the id of a file")
    return (await found_file(request, file_id)).id


def _endpoint(fields: Mapping[str, Any]) -> str:
    endpoint = fields.get("endpoint")
    if not isinstance(endpoint, str) or endpoint not in ENDPOINTS:
        raise invalid(f"endpoint = {shown(endpoint)}: expected one of {', '.join(ENDPOINTS)}")
    return endpoint


def _shown(batch: BatchRecord) -> dict[str, Any]:
    """As OpenAI's API has it."""
    stamps = {f"{name}_at": _seconds(getattr(batch, f"{name}_ms")) for name in _STAMPS}
    tokens = {"input_tokens": batch.prompt_tokens, "output_tokens": batch.completion_tokens}
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": {"object": "list", "data": batch.errors} if batch.errors else None,
        "input_file_id": batch.input_file,
        "completion_window": window_text(batch.window_s),
        "status": batch.status.value,
        "output_file_id": batch.output_file,
        "error_file_id": batch.error_file,
        "created_at": batch.created_ms // 1000,
        "expires_at": batch.expires_ms // 1000,
        **stamps,
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "usage": {
            **tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": batch.prompt_tokens + batch.completion_tokens,
        },
        "metadata": batch.metadata or None,
    }


def _seconds(ms: int | None) -> int | None:
    return None if ms is None else ms // 1000


def routes() -> list[BaseRoute]:
    """Its part of the app."""
    return [
        Route("/v1/batches", create, methods=["POST"]),
        Route("/v1/batches", list_batches, methods=["GET"]),
        Route("/v1/batches/{id}", show, methods=["GET"]),
        Route("/v1/batches/{id}/cancel", cancel, methods=["POST"]),
    ]
