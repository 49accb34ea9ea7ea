"""Streams: kept alive while they wait, resumed wherever they broke off, called back when nobody reads."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import httpx
import pytest

from lorapool.producer.gateway.chunks import ChatForm
from lorapool.producer.gateway.cursor import Piece
from lorapool.producer.testing.canned import CannedPool
from lorapool.shared.errors import JobCancelled
from lorapool.shared.job import JobState
from lorapool.shared.tools import ToolCallDelta
from tests.producer.gateway.conftest import RUNWAY, gateway
from tests.producer.gateway.events import Event, chunks_of, content, events_of

ASK: dict[str, Any] = {"model": "cfo", "messages": [{"role": "user", "content": "How long?"}], "stream": True}
LONG = " ".join(f"word{number}" for number in range(40))


async def begun(http: httpx.AsyncClient, events: int, **options: Any) -> list[Event]:
    """The first events of a stream that is then broken off."""
    text = ""
    async with http.stream("POST", "/v1/chat/completions", json=ASK, **options) as answer:
        async for part in answer.aiter_text():
            text += part
            if text.count("\n\n") >= events:
                break
    return events_of(text[: text.rindex("\n\n")])


async def ended(pool: CannedPool, job_id: str) -> JobState:
    """The state that a job comes to."""
    async with pool.client() as client:
        handle = client.get(job_id)
        async with asyncio.timeout(60):
            with suppress(JobCancelled):
                await handle.result()
        return await handle.state()


async def test_a_stream_that_waits_is_not_silent(canned: CannedPool) -> None:
    """Empty chunks come while nothing else does, which every client counts."""
    canned.delay_s = 0.5
    async with gateway(canned, ping_s=0.05) as url, httpx.AsyncClient(base_url=url, timeout=60) as http:
        answer = await http.post("/v1/chat/completions", json=ASK)
    chunks = chunks_of(answer.text)
    assert 3 <= sum(chunk["choices"][0]["delta"] == {} for chunk in chunks[:-1])
    assert RUNWAY == content(chunks)


async def test_it_goes_on_at_another_replica(canned: CannedPool) -> None:
    """Broken off anywhere: by its id, by the same request, or by an Idempotency-Key, it is whole, and nothing twice."""
    canned.answer("cfo", LONG)
    canned.delay_s = 0.4
    async with (
        gateway(canned) as one,
        gateway(canned) as two,
        httpx.AsyncClient(base_url=one, timeout=60) as first,
        httpx.AsyncClient(base_url=two, timeout=60) as second,
    ):
        for number, how in enumerate(("id", "request", "key")):
            keyed = {"Idempotency-Key": f"k{number}"} if how == "key" else {"x-lorapool-on-disconnect": "keep"}
            had = await begun(first, 4 + 6 * number, headers=keyed)
            last = {"Last-Event-ID": had[-1].id}
            if how == "id":
                rest = await second.get(f"/v1/chat/completions/{had[0].data['id']}/stream", headers=last)
            else:
                rest = await second.post("/v1/chat/completions", json=ASK, headers={**keyed, **last})
            chunks = [event.data for event in had] + chunks_of(rest.text)
            assert LONG == content(chunks), how
            assert 1 == sum("role" in chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"])
            assert 1 == len({chunk["id"] for chunk in chunks})
    assert 3 == len(canned.requests)


async def test_what_is_no_place_of_a_stream_is_refused(http: httpx.AsyncClient) -> None:
    """400 or 404 for a Last-Event-ID that is another's, malformed, or of no job."""
    whole = await http.post("/v1/chat/completions", json=ASK)
    event_id = events_of(whole.text)[0].id
    name = event_id.partition(":")[0]
    for last, status in (
        ("chatcmpl-jx:0.0.0", 404),
        (f"{name}:junk", 400),
        (f"{name}:0.0.0,0.0.0", 400),
        ("junk", 404),
    ):
        answer = await http.post("/v1/chat/completions", json=ASK, headers={"Last-Event-ID": last})
        assert status == answer.status_code, (last, answer.text)
    other = await http.get("/v1/chat/completions/chatcmpl-jnone/stream")
    assert (404, "not_found") == (other.status_code, other.json()["error"]["code"])


async def test_a_client_that_leaves_cancels_its_job(http: httpx.AsyncClient, canned: CannedPool) -> None:
    """In the middle of a stream, and while it waits for a whole answer."""
    canned.answer("cfo", LONG)
    canned.delay_s = 30
    had = await begun(http, 1)
    assert JobState.CANCELLED == await ended(canned, had[0].data["id"].removeprefix("chatcmpl-"))
    with pytest.raises(httpx.ReadTimeout):
        await http.post("/v1/chat/completions", json={**ASK, "stream": False}, timeout=0.5)
    assert JobState.CANCELLED == await ended(canned, canned.requests[-1].job_id)


@pytest.mark.parametrize("headers", [{"x-lorapool-on-disconnect": "keep"}, {"Idempotency-Key": "k"}])
async def test_a_job_may_outlive_its_client(
    http: httpx.AsyncClient, canned: CannedPool, headers: dict[str, str]
) -> None:
    """Where the client says so, or may come again for it."""
    canned.delay_s = 0.3
    had = await begun(http, 1, headers=headers)
    assert JobState.SUCCEEDED == await ended(canned, had[0].data["id"].removeprefix("chatcmpl-"))
    again = await http.get(f"/v1/chat/completions/{had[0].data['id']}")
    assert RUNWAY == again.json()["choices"][0]["message"]["content"]


async def test_a_repeated_request_is_one_job(http: httpx.AsyncClient, canned: CannedPool) -> None:
    """The same key and body: the same answer, at once, later, or as a stream; another body is 422, never 409."""
    key = {"Idempotency-Key": "order-7"}
    body = {**ASK, "stream": False}
    both = await asyncio.gather(*(http.post("/v1/chat/completions", json=body, headers=key) for _ in range(2)))
    stream = await http.post("/v1/chat/completions", json=ASK, headers=key)
    assert [RUNWAY, RUNWAY] == [answer.json()["choices"][0]["message"]["content"] for answer in both]
    assert RUNWAY == content(chunks_of(stream.text))
    assert 1 == len({answer.json()["id"] for answer in both}) == len(canned.requests)
    other = await http.post("/v1/chat/completions", json={**body, "temperature": 0}, headers=key)
    assert (422, "idempotency_key_reused") == (other.status_code, other.json()["error"]["code"])


async def test_an_answer_is_read_again(http: httpx.AsyncClient) -> None:
    """By its id, for a day; a plain completion too; what is cancelled says so."""
    for path, body in (("chat/completions", {**ASK, "n": 2}), ("completions", {"model": "cfo", "prompt": "x"})):
        answer = await http.post(f"/v1/{path}", json={**body, "stream": False})
        again = await http.get(f"/v1/{path}/{answer.json()['id']}")
        assert answer.json()["choices"] == again.json()["choices"]
        assert answer.json()["usage"] == again.json()["usage"]


async def test_jobs_are_cancelled_by_their_id(http: httpx.AsyncClient, canned: CannedPool) -> None:
    """DELETE ends what runs; who waits for it is told."""
    canned.answer("cfo", LONG)
    canned.delay_s = 30
    had = await begun(http, 1, headers={"x-lorapool-on-disconnect": "keep"})
    path = f"/v1/chat/completions/{had[0].data['id']}"
    assert 200 == (await http.delete(path)).status_code
    gone = await http.get(path)
    assert (410, "cancelled", "false") == (
        gone.status_code,
        gone.json()["error"]["code"],
        gone.headers["x-should-retry"],
    )


async def test_usage_comes_where_it_is_asked_for_again(http: httpx.AsyncClient) -> None:
    """A stream that is gone on with has it by its query."""
    whole = await http.post("/v1/chat/completions", json=ASK)
    path = f"/v1/chat/completions/{events_of(whole.text)[0].data['id']}/stream?include_usage=true"
    chunks = chunks_of((await http.get(path)).text)
    assert RUNWAY == content(chunks)
    assert 5 == chunks[-1]["usage"]["completion_tokens"]


def test_a_chunk_has_one_entry_a_call() -> None:
    """Pieces of the same call that come together are joined: many clients look at the first entry alone."""
    grown = (
        ToolCallDelta(index=0, id="call_1", name="look", arguments=""),
        ToolCallDelta(index=0, arguments='{"at'),
        ToolCallDelta(index=1, id="call_2", name="see"),
        ToolCallDelta(index=0, arguments='": 1}'),
    )
    entries = ChatForm().piece(0, Piece(calls=grown), 0)["delta"]["tool_calls"]
    assert [(0, "call_1", "look", '{"at": 1}'), (1, "call_2", "see", "")] == [
        (entry["index"], entry["id"], entry["function"]["name"], entry["function"]["arguments"]) for entry in entries
    ]
