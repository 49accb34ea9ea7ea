"""Models: what may be asked here, by which names; and ``/v1/models``, which lists it.

A name is a ref, an alias, an id, or the base model's own. What is unknown, refused, pending, closed or not the
caller's is 404, with the nearest names that are theirs; never another model. What was looked up is believed for a
second, the list for ten: with 10,000 adapters it costs a second to make.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from lorapool.producer.client.client import Client
from lorapool.producer.gateway.caller import Caller, caller_of
from lorapool.producer.gateway.errors import ApiError, invalid
from lorapool.shared.catalog.adapter_record import BASE_RECORD, AdapterRecord
from lorapool.shared.errors import AdapterClosed, AdapterNotReady, AdapterRefused, InvalidRequest, UnknownAdapter
from lorapool.shared.job import BASE_REF

LIST_S, BASE_S = 10.0, 5.0
COMPARED = 200  # names that an unknown one is compared with: a few milliseconds, which strangers may ask for
MAX_LISTED = 100_000


@dataclass(frozen=True, slots=True)
class Base:
    """The base model, as callers know it."""

    name: str
    names: frozenset[str]
    digest: str


@dataclass(frozen=True, slots=True)
class Model:
    """A name that may be asked, and what it means."""

    name: str
    ref: str
    digest: str
    created: int

    @property
    def adapter_id(self) -> str:
        return self.ref.partition("@")[0]

    def shown(self, base: str) -> dict[str, Any]:
        """As ``/v1/models`` has it."""
        parent = None if self.ref == BASE_REF else base
        facts = {"root": self.ref, "parent": parent, "digest": self.digest}
        return {"id": self.name, "object": "model", "created": self.created, "owned_by": "lorapool", **facts}


class Models:
    """Of one pool."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._base, self._base_until = Base(BASE_REF, frozenset({BASE_REF}), ""), 0.0
        self._listed: list[Model] = []
        self._listed_until = 0.0
        self._listing = asyncio.Lock()

    async def find(self, name: str, caller: Caller, job_id: str | None = None) -> AdapterRecord:
        """What takes a job for that name, the one of that id where a canary takes a part; the base model's has its
        digest too. Raises ApiError: 404."""
        try:
            record = await self._client.adapters.serving(name, near=False, job_id=job_id)
        except (UnknownAdapter, InvalidRequest):
            record = await self._named_base(name, caller)
        except (AdapterNotReady, AdapterRefused, AdapterClosed):
            if not caller.may_ask((await self._client.adapters.get(name)).id):
                raise await self._unknown(name, caller) from None
            raise
        if not caller.may_ask(record.id):
            raise await self._unknown(name, caller)
        return (
            record if record.ref != BASE_REF else BASE_RECORD.model_copy(update={"digest": (await self.base()).digest})
        )

    async def base(self) -> Base:
        """What the pool says of its base model."""
        if time.monotonic() >= self._base_until:
            config = await self._client.config()
            if config is not None:
                given = config.base_model
                path = PurePath(given)
                name = path.name if path.is_absolute() else given
                self._base = Base(name, frozenset({name, given, BASE_REF}), config.digest)
            self._base_until = time.monotonic() + BASE_S
        return self._base

    async def listed(self, caller: Caller) -> list[Model]:
        """All that this caller may ask, the base model first."""
        if time.monotonic() >= self._listed_until:
            async with self._listing:
                if time.monotonic() >= self._listed_until:
                    self._listed = await self._list()
                    self._listed_until = time.monotonic() + LIST_S
        if caller.adapters == ("*",):
            return self._listed
        return [model for model in self._listed if caller.may_ask(model.adapter_id)]

    async def _named_base(self, name: str, caller: Caller) -> AdapterRecord:
        if name in (await self.base()).names:
            return BASE_RECORD
        raise await self._unknown(name, caller)

    async def _unknown(self, name: str, caller: Caller) -> ApiError:
        names = [model.name for model in await self.listed(caller)]
        near = await asyncio.to_thread(_nearest, name, names)
        hint = f"; did you mean {' or '.join(near)}?" if near else "; GET /v1/models lists those there are"
        return ApiError(
            404, f"the model {name[:128]!r} does not exist here{hint}", code="model_not_found", param="model"
        )

    async def _list(self) -> list[Model]:
        base = await self.base()
        models = {base.name: Model(base.name, BASE_REF, base.digest, 0)}
        for record in await self._client.adapters.list():
            if record.status != "ready":
                continue
            facts = (record.ref, record.digest, record.registered_ms // 1000)
            for name in (record.ref, record.id, *record.aliases):
                models.setdefault(name, Model(name, *facts))
        return list(models.values())


def _nearest(name: str, names: list[str]) -> list[str]:
    """Among many names only those that begin alike are compared: to compare with all takes too long."""
    wanted = name[:128].casefold()
    for alike in (1, 2, 3):
        if len(names) > COMPARED:
            names = [each for each in names if each[:alike].casefold() == wanted[:alike]]
    names = names[:COMPARED]
    folded = {each.casefold(): each for each in reversed(names)}
    return [folded[each] for each in get_close_matches(wanted, folded, n=3)]


def models_of(request: Request) -> Models:
    """The app's."""
    models: Models = request.app.state.models
    return models


async def list_models(request: Request) -> Response:
    """``after`` (a name) and ``limit`` page through a long list."""
    models = models_of(request)
    found, base = await models.listed(caller_of(request)), await models.base()
    page, more = _page(found, request.query_params.get("after"), request.query_params.get("limit"))
    data = await asyncio.to_thread(
        lambda: json.dumps([model.shown(base.name) for model in page], separators=(",", ":"))
    )
    body = f'{{"object":"list","data":{data},"has_more":{json.dumps(more)}}}'
    return Response(body, media_type="application/json")


async def show_model(request: Request) -> Response:
    """One, by any of its names."""
    name, models = request.path_params["name"], models_of(request)
    record, base = await models.find(name, caller_of(request)), await models.base()
    model = Model(name, record.ref, record.digest, record.registered_ms // 1000)
    return JSONResponse(model.shown(base.name))


def _page(models: list[Model], after: str | None, limit: str | None) -> tuple[list[Model], bool]:
    if limit is not None and not (limit.isdecimal() and len(limit) <= 6 and int(limit) > 0):
        raise invalid(f"limit = {limit[:20]!r}: expected a whole number from 1 to 999999")
    start = 0
    if after is not None:
        start = next((place + 1 for place, model in enumerate(models) if model.name == after), len(models))
    size = int(limit) if limit else MAX_LISTED
    return models[start : start + size], len(models) > start + size


def routes() -> list[BaseRoute]:
    """Its part of the app."""
    return [Route("/v1/models", list_models), Route("/v1/models/{name:path}", show_model)]
