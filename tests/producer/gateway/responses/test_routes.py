"""The Responses API over HTTP, on a real server: made, found again anywhere, streamed on, ended, and nobody else's."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from lorapool.producer.client.client import Client
from lorapool.producer.testing import CannedFailure, CannedPool
from tests.fleet import until
from tests.producer.gateway.responses.conftest import asking
from tests.producer.gateway.responses.judge import ITEM, judged, response

SAYS = "We have eighteen months of runway."


async def made(http: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await http.post("/v1/responses", json={"model": "cfo", "input": "How long?", **fields})
    assert 200 == answer.status_code, answer.text
    return answer.json()


async def retrieved(http: httpx.AsyncClient, response_id: str) -> dict[str, Any]:
    answer = await http.get(f"/v1/responses/{response_id}")
    assert 200 == answer.status_code, answer.text
    return answer.json()


async def ended(http: httpx.AsyncClient, response_id: str) -> dict[str, Any]:
    async def done() -> dict[str, Any] | None:
        body = await retrieved(http, response_id)
        return None if body["status"] in ("queued", "in_progress") else body

    found: dict[str, Any] = await until(done)
    return found


def events_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


async def test_response_is_answered_and_found_again(http: httpx.AsyncClient) -> None:
    """What POST answers is what GET brings, and openai reads it."""
    body = await made(http, instructions="Be brief.", metadata={"k": "v"}, temperature=0)
    read = response(body)
    assert (SAYS, "completed", "cfo", "Be brief.") == (read.output_text, read.status, read.model, read.instructions)
    assert body == await retrieved(http, body["id"])


async def test_background_is_answered_at_once(http: httpx.AsyncClient, pool: CannedPool) -> None:
    """It is queued, in progress, and completed in the end."""
    pool.delay_s = 0.2
    body = await made(http, background=True)
    assert body["status"] in ("queued", "in_progress")
    assert body["background"]
    assert SAYS == response(await ended(http, body["id"])).output_text


async def test_another_replica_finds_it(http: httpx.AsyncClient, pool: CannedPool) -> None:
    """A gateway that never saw the request retrieves and streams it."""
    body = await made(http, background=True)
    async with pool.client() as client, asking(client) as other:
        assert SAYS == response(await ended(other, body["id"])).output_text


async def test_stream_is_told_and_told_again(http: httpx.AsyncClient) -> None:
    """The stream's last event is the response that is retrieved; asked for again, it is the same, event by event."""
    answer = await http.post("/v1/responses", json={"model": "cfo", "input": "How long?", "stream": True})
    events = events_of(answer.text)
    judged(events)
    assert SAYS == "".join(event.get("delta", "") for event in events)
    response_id = events[0]["response"]["id"]
    assert events[-1]["response"] == await retrieved(http, response_id)
    again = events_of((await http.get(f"/v1/responses/{response_id}?stream=true")).text)
    assert (events[0], events[-1]) == (again[0], again[-1])


async def test_stream_goes_on_after_any_number(http: httpx.AsyncClient, pool: CannedPool) -> None:
    """After each number, also within a delta, comes exactly what is left, at another replica."""
    body = await made(http, background=True)
    await ended(http, body["id"])
    async with pool.client() as client, asking(client) as other:
        whole = events_of((await http.get(f"/v1/responses/{body['id']}?stream=true")).text)
        first = next(event for event in whole if "delta" in event)
        start = first["sequence_number"] - len(first["delta"])
        for after in (0, 3, start, start + 1, start + 9, start + len(SAYS), whole[-2]["sequence_number"]):
            url = f"/v1/responses/{body['id']}?stream=true&starting_after={after}"
            rest = events_of((await other.get(url)).text)
            assert SAYS[max(0, after - start) :] == "".join(event.get("delta", "") for event in rest), after
            assert all(event["sequence_number"] > after for event in rest)
            assert whole[-1] == rest[-1]


async def test_last_event_id_is_such_a_number(http: httpx.AsyncClient) -> None:
    """What a browser sends when it comes again has the same effect."""
    body = await made(http)
    answer = await http.get(f"/v1/responses/{body['id']}?stream=true", headers={"Last-Event-ID": "3"})
    assert 3 < events_of(answer.text)[0]["sequence_number"]


async def test_stream_that_waits_gives_signs_of_life(client: Client, pool: CannedPool) -> None:
    """While nothing comes, an event that says so comes now and then, and moves no number."""
    pool.delay_s = 0.5
    async with asking(client, ping_s=0.02) as http:
        asked = {"model": "cfo", "input": "?", "stream": True, "background": True, "max_output_tokens": 1}
        events = events_of((await http.post("/v1/responses", json=asked)).text)
    queued = [event for event in events if event["type"] == "response.queued"]
    assert len(queued) > 2
    assert {1} == {event["sequence_number"] for event in queued}
    numbers = [event["sequence_number"] for event in events]
    assert numbers == sorted(numbers)


async def test_conversation_goes_on_from_the_previous(http: httpx.AsyncClient, pool: CannedPool) -> None:
    """A next turn has all that was said before; instructions are not carried over."""
    first = await made(http, instructions="Be brief.")
    second = await made(http, input="Why?", previous_response_id=first["id"])
    third = await made(http, input="And?", previous_response_id=second["id"], instructions="Be long.")
    chat = [(message.role, message.content) for message in pool.requests[-1].job.messages]
    expected = [("system", "Be long."), ("user", "How long?"), ("assistant", SAYS), ("user", "Why?")]
    assert [*expected, ("assistant", SAYS), ("user", "And?")] == chat
    listed = (await http.get(f"/v1/responses/{third['id']}/input_items?order=asc")).json()
    assert ["user", "assistant", "user", "assistant", "user"] == [ITEM.validate_python(i).role for i in listed["data"]]


async def test_input_items_are_paged(http: httpx.AsyncClient) -> None:
    """The latest first; ``after`` goes on where a page ended."""
    body = await made(http, input=[{"role": "user", "content": str(at)} for at in range(5)])
    url = f"/v1/responses/{body['id']}/input_items"
    first = (await http.get(url, params={"limit": 3})).json()
    rest = (await http.get(url, params={"limit": 3, "after": first["last_id"]})).json()
    texts = [item["content"][0]["text"] for item in first["data"] + rest["data"]]
    assert (["4", "3", "2", "1", "0"], True, False) == (texts, first["has_more"], rest["has_more"])
    assert 400 == (await http.get(url, params={"limit": "x"})).status_code
    assert 400 == (await http.get(url, params={"order": "up"})).status_code


async def test_cancelled_is_cancelled(http: httpx.AsyncClient, pool: CannedPool) -> None:
    """A response under way ends, and says so; one that has ended stays as it is."""
    pool.delay_s = 30
    body = await made(http, background=True)
    cancelled = (await http.post(f"/v1/responses/{body['id']}/cancel")).json()
    assert "cancelled" == response(cancelled).status
    stream = events_of((await http.get(f"/v1/responses/{body['id']}?stream=true")).text)
    assert "cancelled" == judged(stream)[-1].response.status
    pool.delay_s = 0
    done = await made(http)
    assert done == (await http.post(f"/v1/responses/{done['id']}/cancel")).json()


async def test_deleted_is_gone(http: httpx.AsyncClient) -> None:
    """It is found no more, in any way."""
    body = await made(http)
    assert {"id": body["id"], "object": "response", "deleted": True} == (
        await http.delete(f"/v1/responses/{body['id']}")
    ).json()
    for method, path in (("GET", ""), ("GET", "/input_items"), ("POST", "/cancel"), ("DELETE", "")):
        answer = await http.request(method, f"/v1/responses/{body['id']}{path}")
        assert (404, "not_found") == (answer.status_code, answer.json()["error"]["code"])


async def test_what_is_not_to_be_stored_is_not(http: httpx.AsyncClient, redis_url: str, client: Client) -> None:
    """With store = false there is an answer, and nothing to retrieve or go on from."""
    body = await made(http, store=False)
    assert SAYS == response(body).output_text
    assert not body["store"]
    assert 404 == (await http.get(f"/v1/responses/{body['id']}")).status_code
    asked = {"model": "cfo", "input": "Why?", "previous_response_id": body["id"]}
    refusal = (await http.post("/v1/responses", json=asked)).json()["error"]
    assert "previous_response_not_found" == refusal["code"]


async def test_failure_is_told(http: httpx.AsyncClient, pool: CannedPool) -> None:
    """Of a job that failed: an error at once, a failed response later, a failed event in the stream."""

    def fails(_: object) -> str:
        raise CannedFailure("KernelPanic", "the device is gone")

    pool.answer("cto", fails)
    asked = {"model": "cto", "input": "?"}
    assert 500 == (await http.post("/v1/responses", json=asked)).status_code
    body = await made(http, model="cto", background=True)
    failed = response(await ended(http, body["id"]))
    assert ("failed", "server_error", "the device is gone") == (
        failed.status,
        failed.error.code,
        failed.error.message,
    )
    streamed = events_of((await http.post("/v1/responses", json={**asked, "stream": True})).text)
    assert "response.failed" == judged(streamed)[-1].type
    refusal = await http.post("/v1/responses", json={"model": "cfo", "input": "?", "previous_response_id": body["id"]})
    assert (400, "previous_response_id") == (refusal.status_code, refusal.json()["error"]["param"])


async def test_refused_leaves_nothing(http: httpx.AsyncClient, client: Client, pool: CannedPool) -> None:
    """An unknown model is 404, and a job that the queue refuses is told; neither leaves a record."""
    assert 404 == (await http.post("/v1/responses", json={"model": "cgo", "input": "?"})).status_code
    refusal = await http.post("/v1/responses", json={"model": "cfo", "input": "?", "temperature": 9})
    assert 400 == refusal.status_code
    refusal = await http.post("/v1/responses", json={"model": "cfo", "input": "?", "max_output_tokens": 0})
    assert (400, "max_output_tokens") == (refusal.status_code, refusal.json()["error"]["param"])
    server = client._parts.connection.server
    assert [] == await server.scan("lp:*:response:*")


async def test_half_a_character_is_no_text(http: httpx.AsyncClient) -> None:
    """A lone surrogate, which no answer could repeat, is refused; a whole pair is a character."""
    body = b'{"model": "cfo", "input": "?", "metadata": {"k": "%s"}}'
    refusal = await http.post("/v1/responses", content=body % rb"\ud83d")
    assert (400, "invalid_json") == (refusal.status_code, refusal.json()["error"]["code"])
    answer = await http.post("/v1/responses", content=body % rb"\ud83d\ude00")
    assert "\N{GRINNING FACE}" == answer.json()["metadata"]["k"]


async def test_same_key_is_the_same_response(http: httpx.AsyncClient, pool: CannedPool) -> None:
    """A request that is repeated with its Idempotency-Key runs once and has one id."""
    asked = {"model": "cfo", "input": "How long?"}
    answers = [
        (await http.post("/v1/responses", json=asked, headers={"Idempotency-Key": "k1"})).json() for _ in range(2)
    ]
    assert answers[0] == answers[1]
    assert 1 == len(pool.requests)


@pytest.mark.parametrize("bad", ["resp_nope", "resp_", "nope", "resp_..%2F", "resp_" + "x" * 300])
async def test_id_of_nothing_is_not_found(http: httpx.AsyncClient, bad: str) -> None:
    """Whatever it looks like."""
    assert 404 == (await http.get(f"/v1/responses/{bad}")).status_code


async def test_number_that_is_none_is_named(http: httpx.AsyncClient) -> None:
    """``starting_after`` is a number."""
    body = await made(http)
    answer = await http.get(f"/v1/responses/{body['id']}?stream=true&starting_after=-4")
    assert (400, "starting_after") == (answer.status_code, answer.json()["error"]["param"])


async def test_of_another_caller_is_not_found(http: httpx.AsyncClient, client: Client) -> None:
    """Who has another key, and so is another agent, finds nothing and goes on from nothing; an operator finds it."""
    secrets = [
        await client.keys.add(name, role=role) for name, role in (("a", "agent"), ("b", "agent"), ("o", "operator"))
    ]
    mine, others, operators = ({"Authorization": f"Bearer {secret}"} for secret in secrets)
    asked = {"model": "cfo", "input": "How long?", "user": "someone"}
    body = (await http.post("/v1/responses", json=asked, headers=mine)).json()
    path = f"/v1/responses/{body['id']}"
    for method, below in (("GET", ""), ("GET", "/input_items"), ("POST", "/cancel"), ("DELETE", "")):
        assert 404 == (await http.request(method, path + below, headers=others)).status_code
        assert 401 == (await http.request(method, path + below)).status_code
    next_turn = {"model": "cfo", "input": "Why?", "previous_response_id": body["id"]}
    assert 400 == (await http.post("/v1/responses", json=next_turn, headers=others)).status_code
    assert body == (await http.get(path, headers=operators)).json() == (await http.get(path, headers=mine)).json()


async def test_over_quota_leaves_nothing(http: httpx.AsyncClient, client: Client) -> None:
    """A job that the key's quota refuses is 429 with a time to come again, and no response is stored of it."""
    secret = await client.keys.add("a", jobs_per_minute=1)
    headers = {"Authorization": f"Bearer {secret}"}
    asked = {"model": "cfo", "input": "How long?"}
    assert 200 == (await http.post("/v1/responses", json=asked, headers=headers)).status_code
    refusal = await http.post("/v1/responses", json=asked, headers=headers)
    assert 429 == refusal.status_code
    assert int(refusal.headers["retry-after"]) > 0
    assert 1 == len(await client._parts.connection.server.scan("lp:*:response:*"))
