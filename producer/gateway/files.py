"""``/v1/files``: given, listed, shown, read, deleted. What is another agent's is not there.

Content goes to the store and comes from it piece by piece; nothing here holds a file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from lorapool.producer.batches.files import PURPOSES, Files, Upload
from lorapool.producer.batches.store import store_at
from lorapool.producer.client.client import Client
from lorapool.producer.gateway.caller import Caller, caller_of
from lorapool.producer.gateway.errors import ApiError, invalid
from lorapool.producer.gateway.multipart import Form, read_form
from lorapool.producer.gateway.settings import GatewaySettings
from lorapool.shared.batches.file_book import KEPT_S
from lorapool.shared.batches.file_record import FileRecord
from lorapool.shared.errors import FileInUse, PayloadTooLarge, UnknownFile

MAX_LISTED = 10_000
LEAST_KEPT_S = 3_600


class OpenFiles:
    """The app's ``Files``, opened when they are first asked for: an object store may be slow, or away."""

    def __init__(self, client: Client, settings: GatewaySettings) -> None:
        self._client, self._location = client, settings.files
        self._files: Files | None = None

    async def get(self) -> Files:
        """Raises FilesUnavailable, InvalidRequest."""
        if self._files is None:
            self._files = Files(self._client.files, await asyncio.to_thread(store_at, self._location))
        return self._files


async def files_of(request: Request) -> Files:
    """The app's."""
    opened: OpenFiles = request.app.state.files
    return await opened.get()


def owner(caller: Caller) -> str | None:
    """Whose files and batches a caller sees: None is everybody's."""
    return None if caller.may_read("") else caller.agent


def page_of(request: Request, most: int, default: int) -> dict[str, Any]:
    """``after`` and ``limit`` of a list. Raises ApiError."""
    limit = request.query_params.get("limit", str(default))
    if not (limit.isascii() and limit.isdecimal() and len(limit) <= 5 and 1 <= int(limit) <= most):
        raise invalid(f"limit = {limit[:20]!r}: expected a whole number from 1 to {most}")
    return {"after": request.query_params.get("after"), "limit": int(limit)}


def listed(shown: list[dict[str, Any]], *, more: bool) -> Response:
    """A page as OpenAI's clients read it."""
    ends = {"first_id": shown[0]["id"] if shown else None, "last_id": shown[-1]["id"] if shown else None}
    return JSONResponse({"object": "list", "data": shown, "has_more": more, **ends})


class _Incoming:
    """A file on its way in; nothing of it stays unless it is ``end``ed."""

    def __init__(self, files: Files, agent: str, max_bytes: int) -> None:
        self._files, self._agent, self._max_bytes = files, agent, max_bytes
        self._upload: Upload | None = None
        self._fields: Mapping[str, str] = {}

    async def take(self, form: Form, piece: bytes) -> None:
        """What came of the form."""
        self._fields = form.fields
        if self._upload is None and form.filename is not None:
            self._upload = await self._files.begin(self._agent, form.filename)
        if self._upload is not None and piece:
            await self._upload.write(piece, self._max_bytes)

    async def end(self) -> FileRecord:
        """The form is whole. Raises ApiError."""
        if self._upload is None:
            raise invalid("file: missing")
        return await self._upload.end(_kept_s(self._fields), purpose=_purpose(self._fields))

    async def abort(self) -> None:
        if self._upload is not None:
            await self._upload.abort()


async def upload(request: Request) -> Response:
    """``POST /v1/files``: a form with ``file`` and ``purpose``."""
    limit = request.app.state.settings.max_file_bytes
    incoming = _Incoming(await files_of(request), caller_of(request).agent, limit)
    try:
        async with aclosing(read_form(request)) as reading:
            async for form, piece in reading:
                await incoming.take(form, piece)
        record = await incoming.end()
    except PayloadTooLarge as error:
        await incoming.abort()
        raise ApiError(413, str(error), code="request_too_large", headers={"connection": "close"}) from None
    except BaseException:
        await incoming.abort()
        raise
    return JSONResponse(_shown(record))


async def list_files(request: Request) -> Response:
    """``GET /v1/files``: newest first, unless ``order`` is ``asc``."""
    order = request.query_params.get("order", "desc")
    if order not in {"asc", "desc"}:
        raise invalid(f"order = {order[:20]!r}: expected asc or desc")
    client: Client = request.app.state.client
    records, more = await client.files.page(
        owner(caller_of(request)),
        purpose=request.query_params.get("purpose"),
        ascending=order == "asc",
        **page_of(request, MAX_LISTED, MAX_LISTED),
    )
    return listed([_shown(record) for record in records], more=more)


async def show(request: Request) -> Response:
    """``GET /v1/files/{id}``."""
    return JSONResponse(_shown(await found(request, request.path_params["id"])))


async def content(request: Request) -> Response:
    """``GET /v1/files/{id}/content``."""
    record = await found(request, request.path_params["id"])
    headers = {
        "content-length": str(record.bytes),
        "content-disposition": "attachment",
        "x-content-type-options": "nosniff",
    }
    pieces = (await files_of(request)).content(record)
    return StreamingResponse(pieces, media_type="application/octet-stream", headers=headers)


async def delete(request: Request) -> Response:
    """``DELETE /v1/files/{id}``."""
    record = await found(request, request.path_params["id"])
    try:
        await (await files_of(request)).remove(record)
    except FileInUse as error:
        raise invalid(str(error), code="file_in_use") from None
    return JSONResponse({"id": record.id, "object": "file", "deleted": True})


async def found(request: Request, file_id: str) -> FileRecord:
    """A file that is the caller's to see. Raises ApiError: 404."""
    client: Client = request.app.state.client
    try:
        record = await client.files.get(file_id)
    except UnknownFile:
        record = None
    if record is None or not caller_of(request).may_read(record.agent):
        raise ApiError(404, f"No such File object: {file_id[:80]}", param="id", code="not_found")
    return record


def _purpose(fields: Mapping[str, str]) -> str:
    purpose = fields.get("purpose", "")
    if purpose not in PURPOSES:
        raise invalid(f"purpose = {purpose!r:.60}: expected one of {', '.join(PURPOSES)}")
    return purpose


def _kept_s(fields: Mapping[str, str]) -> int:
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return KEPT_S
    if anchor != "created_at":
        raise invalid(f"expires_after.anchor = {anchor!r:.40}: expected created_at")
    if seconds is None or not (seconds.isascii() and seconds.isdecimal() and len(seconds) <= 9):
        raise invalid(f"expires_after.seconds = {seconds!r:.40}: expected a whole number")
    if not LEAST_KEPT_S <= int(seconds) <= KEPT_S:
        raise invalid(f"expires_after.seconds = {seconds}: expected {LEAST_KEPT_S} to {KEPT_S}")
    return int(seconds)


def _shown(record: FileRecord) -> dict[str, Any]:
    """As OpenAI's API has it."""
    return {
        "id": record.id,
        "object": "file",
        "bytes": record.bytes,
        "created_at": record.created_ms // 1000,
        "expires_at": record.expires_ms // 1000,
        "filename": record.filename,
        "purpose": record.purpose,
        "status": record.status.value,
        "status_details": None,
        "sha256": record.sha256,
    }


def routes() -> list[BaseRoute]:
    """Its part of the app."""
    return [
        Route("/v1/files", upload, methods=["POST"]),
        Route("/v1/files", list_files, methods=["GET"]),
        Route("/v1/files/{id}", show, methods=["GET"]),
        Route("/v1/files/{id}", delete, methods=["DELETE"]),
        Route("/v1/files/{id}/content", content, methods=["GET"]),
    ]
