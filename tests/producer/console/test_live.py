"""Live: parts told again where they changed, over a real server; the playground's answers as they are written."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.exceptions import HTTPException

from lorapool.producer.console.recorder import record_minute
from lorapool.producer.console.streams import Streams
from tests.producer.console.conftest import Browser


@asynccontextmanager
async def told(browser: Browser, path: str) -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
    """The events of a stream: name and data."""
    async with browser.stream("GET", path) as answer:
        assert 200 == answer.status_code
        yield _events(answer)


async def _events(answer: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    name = ""
    async for line in answer.aiter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data" and value:
            yield name, json.loads(value) if value.startswith("{") else value


async def test_what_changes_is_told(served, client, add_adapter):
    """The parts of a page come at once; then those alone that are not as they were."""
    await add_adapter()
    async with told(served, "/console/live") as events:
        first = [await anext(events) for _ in range(4)]
        assert {"charts", "now", "concerns", "longest"} == {part["id"] for _, part in first}
        await client.submit("cfo", "Hello")
        seen = {}
        async for _, part in events:
            seen[part["id"]] = part["html"]
            if "cfo@1" in seen.get("longest", ""):
                break
        assert "charts" not in seen or "1" in seen["charts"]


async def test_a_stream_ends_with_its_readers_key(served, client, monkeypatch):
    """Revoked, it is told nothing any more."""
    key = await client.keys.add("ops", role="operator")
    await served.post("/console/sign-in", data={"key": key}, headers={"origin": str(served.base_url).rstrip("/")})
    async with told(served, "/console/workers/live") as events:
        await anext(events)
        await client.keys.revoke("ops")
        assert [] == [event async for event in events]


async def test_streams_are_bounded(client, monkeypatch):
    """One more is refused, and says when to come again."""
    streams = Streams(most=0)
    with pytest.raises(HTTPException, match="too many pages") as refused:
        streams.answer(_nothing())
    assert (503, "10") == (refused.value.status_code, refused.value.headers["retry-after"])


async def _nothing() -> AsyncIterator[Any]:
    return
    yield


async def test_the_playground_tells_each_answer_as_it_comes(served, client, add_adapter, worker):
    """One prompt, two adapters and a name that is none: two texts, whole, each with its job; the third says why."""
    await add_adapter()
    await add_adapter("ceo")
    origin = {"origin": str(served.base_url).rstrip("/"), "hx-request": "true"}
    fields = {"prompt": "How long is it?", "adapter": ["cfo", "ceo", "nobody"], "max_new_tokens": "50"}
    page = (await served.post("/console/playground", data=fields, headers=origin)).text
    assert "no adapter, alias or version" in page
    jobs = dict.fromkeys(part.split('"')[0] for part in page.split('data-job="')[1:])
    texts, ends = dict.fromkeys(jobs, ""), {}
    async with told(served, f"/console/playground/stream?{'&'.join(f'job={job}' for job in jobs)}") as events:
        async for name, data in events:
            if name == "delta":
                texts[data["job"]] += data["text"]
            elif name == "end":
                ends[data["job"]] = data["said"]
            if len(ends) == 2:
                break
    assert ["ceo@1 heard: How long is it?", "cfo@1 heard: How long is it?"] == sorted(texts.values())
    assert all("tokens in" in said for said in ends.values())


async def test_stop_cancels_the_answers(console, client, add_adapter):
    """Of this page alone."""
    await add_adapter()
    page = (await console.send_form("/console/playground", {"prompt": "Hello", "adapter": "cfo"})).text
    job = page.split('data-job="')[1].split('"')[0]
    assert 204 == (await console.send_form("/console/playground/stop", {"job": job})).status_code
    assert "cancelled" == await client.get(job).state()


async def test_names_are_suggested(console, add_adapter):
    """Those that have what was typed: refs and aliases."""
    await add_adapter(aliases=["boss"])
    assert 'value="boss"' in (await console.get("/console/playground/names?adapter=BO")).text
    assert 'value="cfo@1"' not in (await console.get("/console/playground/names?adapter=BO")).text


async def test_a_minute_is_recorded_once(console, client, add_adapter, worker):
    """Whoever comes first writes it; the overview has its line when there are two."""
    await add_adapter()
    await (await client.submit("cfo", "Hello")).result(20)
    assert [True, False] == [await record_minute(client), await record_minute(client)]
    [minute] = await client.history.minutes()
    assert (1, 1) == (minute.totals["submitted"], minute.totals["workers"])
