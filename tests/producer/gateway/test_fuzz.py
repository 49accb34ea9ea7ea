"""Whatever is sent, by the page that the gateway serves or not: an answer, or a refusal in the API's form; no 5xx."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorapool.producer.gateway.openapi import SCHEMAS, paths
from lorapool.producer.testing.canned import CannedPool
from tests.length import at_length
from tests.producer.gateway.conftest import RUNWAY, gateway
from tests.producer.gateway.events import events_of
from tests.producer.gateway.schema_junk import JUNK, bodies

Ask = Callable[..., httpx.Response]
SENT = [
    (path, content["application/json"]["schema"])
    for path, methods in paths().items()
    for operation in methods.values()
    if "application/json" in (content := operation.get("requestBody", {}).get("content", {}))
]
HEADER = st.text("abcXYZ019.:_- ,\t~é", max_size=30)
HEADERS = st.dictionaries(
    st.sampled_from(["idempotency-key", "last-event-id", "x-lorapool-on-disconnect", "x-request-id"]),
    HEADER,
    max_size=2,
)
EXAMPLES = at_length(80, 3_000)


@pytest.fixture(scope="module")
def ask(redis_server: str) -> Iterator[Ask]:
    """A request to one gateway for all."""
    loop = asyncio.new_event_loop()
    stack, pool = AsyncExitStack(), CannedPool(redis_server)

    async def begin() -> httpx.AsyncClient:
        pool.answer("cfo", RUNWAY, aliases=["money"])
        pool.answer(None, RUNWAY)
        url = await stack.enter_async_context(gateway(pool))
        return await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=60))

    with pool:
        http = loop.run_until_complete(begin())
        yield lambda *args, **options: loop.run_until_complete(http.request(*args, **options))
        loop.run_until_complete(stack.aclose())
    loop.close()


def check(answer: httpx.Response) -> None:
    """A 2xx, or a refusal of its form."""
    assert answer.status_code < 500 or answer.status_code == 501, (answer.request.content, answer.text)
    if answer.headers["content-type"].startswith("text/event-stream"):
        events_of(answer.text)
    elif answer.status_code >= 300:
        error = answer.json()["error"]
        assert isinstance(error["message"] if isinstance(error, dict) else error, str)
    else:
        answer.json()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(SENT), st.data())
def test_bodies(ask: Ask, sent: tuple[str, dict[str, Any]], data: st.DataObject) -> None:
    """Of every path that takes one."""
    path, schema = sent
    body = data.draw(bodies(schema, dict(SCHEMAS)))
    headers = {name: value.strip().encode("utf-8") for name, value in data.draw(HEADERS).items()}
    check(ask("POST", path, content=json.dumps(body), headers=headers))


@settings(max_examples=EXAMPLES // 3, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(sorted(paths())), st.sampled_from(["GET", "DELETE", "PUT", "PATCH", "HEAD"]), st.text(max_size=20)
)
def test_paths(ask: Ask, path: str, method: str, junk: str) -> None:
    """Of every path, with any id, by any method."""
    filled = re.sub(r"\{\w+\}", lambda _: quote(junk, safe="") or "x", path)
    answer = ask(method, filled, headers={"last-event-id": "chatcmpl-j:0.0.0"})
    if method != "HEAD":
        check(answer)
    assert answer.status_code < 500


@settings(max_examples=EXAMPLES // 3, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from([path for path, _ in SENT]), JUNK | st.binary(max_size=200))
def test_junk(ask: Ask, path: str, junk: Any) -> None:
    """What is no request of anybody's."""
    check(ask("POST", path, content=junk if isinstance(junk, bytes) else json.dumps(junk)))
