"""Batches through the gateway, by OpenAI's own client: made, followed to their end, read, cancelled, refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError, UnprocessableEntityError
from openai.types import Batch, Completion
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from lorapool.producer.testing.canned import CannedPool
from tests.fleet import until
from tests.producer.gateway.conftest import RUNWAY, gateway

CHAT, PLAIN, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"


@pytest.fixture
async def openai(canned: CannedPool, tmp_path: Path) -> AsyncIterator[AsyncOpenAI]:
    async with (
        gateway(canned, files=str(tmp_path / "files")) as url,
        AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def line(custom_id: str, url: str = CHAT, **body: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {"model": "cfo"}
    if url == CHAT:
        asked["messages"] = [{"role": "user", "content": "How long is our runway?"}]
    else:
        asked["input" if url == RESPONSES else "prompt"] = "How long is our runway?"
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {**asked, **body}}


def jsonl(lines: Iterable[object]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


async def made(openai: AsyncOpenAI, content: bytes, endpoint: str = CHAT, **more: Any) -> Batch:
    file = await openai.files.create(file=("in.jsonl", content), purpose="batch")
    fields = {"endpoint": endpoint, "completion_window": "24h", **more}
    return await openai.batches.create(input_file_id=file.id, **fields)


async def ended(openai: AsyncOpenAI, batch: Batch) -> Batch:
    async def end() -> Batch | None:
        now = await openai.batches.retrieve(batch.id)
        return now if now.status in {"completed", "failed", "expired", "cancelled"} else None

    found: Batch = await until(end, every_s=0.05)
    return found


async def read(openai: AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    content = (await openai.files.content(file_id)).content if file_id else b""
    return [json.loads(text) for text in content.splitlines()]


async def test_a_batch_of_chats_is_answered(openai: AsyncOpenAI) -> None:
    """Each answer is what the endpoint would say; counts, tokens, times and metadata are told."""
    batch = await made(openai, jsonl(line(f"q{n}", n=n) for n in (1, 2)), metadata={"a": "b"})
    assert ("validating", CHAT, "24h") == (batch.status, batch.endpoint, batch.completion_window)
    batch = await ended(openai, batch)
    assert ("completed", 2, 2, 0, None) == (batch.status, *counts(batch), batch.error_file_id)
    assert (batch.metadata, batch.usage.output_tokens) == ({"a": "b"}, 3 * len(RUNWAY.split()))
    times = [batch.created_at, batch.in_progress_at, batch.finalizing_at, batch.completed_at, batch.expires_at]
    assert None not in times and sorted(map(int, times)) == times
    answers = {each["custom_id"]: each for each in await read(openai, batch.output_file_id)}
    for n in (1, 2):
        answer = ChatCompletion.model_validate(answers[f"q{n}"]["response"]["body"])
        assert [RUNWAY] * n == [choice.message.content for choice in answer.choices]
    assert [batch] == [each async for each in openai.batches.list()]


def counts(batch: Batch) -> tuple[int, int, int]:
    numbers = batch.request_counts
    return numbers.total, numbers.completed, numbers.failed


async def test_other_endpoints_are_answered(openai: AsyncOpenAI) -> None:
    """Plain completions and responses."""
    bodies = []
    for endpoint in (PLAIN, RESPONSES):
        batch = await ended(openai, await made(openai, jsonl([line("q", endpoint)]), endpoint))
        [answer] = await read(openai, batch.output_file_id)
        bodies.append(answer["response"]["body"])
    assert RUNWAY == Completion.model_validate(bodies[0]).choices[0].text
    assert (RUNWAY, False) == (Response.model_validate(bodies[1]).output_text, bodies[1]["store"])


async def test_bad_lines_are_told_in_the_error_file(openai: AsyncOpenAI) -> None:
    """With the status and the words of the endpoint; the good one is answered."""
    bad = {
        "model": {"model": "nobody"},
        "param": {"temperature": 9},
        "field": {"colour": "blue"},
        "stream": {"stream": True},
    }
    batch = await made(openai, jsonl([line("good"), *(line(name, **body) for name, body in bad.items())]))
    batch = await ended(openai, batch)
    assert ("completed", 5, 1, 4) == (batch.status, *counts(batch))
    errors = {each["custom_id"]: each["response"] for each in await read(openai, batch.error_file_id)}
    assert {"model": 404, "param": 400, "field": 400, "stream": 400} == {
        name: response["status_code"] for name, response in errors.items()
    }
    assert "temperature" in errors["param"]["body"]["error"]["message"]


GOOD = json.dumps(line("a")).encode()
FAULTS = {
    "not JSON": (b"\x00\xff\xfe nonsense", "invalid_json_line", 1),
    "a binary": (bytes(range(256)) * 50, "invalid_json_line", 1),
    "UTF-16": (GOOD.decode().encode("utf-16"), "invalid_json_line", 1),
    "an array": (b"[1]", "invalid_json_line", 1),
    "deep": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "invalid_json_line", 1),
    "no number": (GOOD.replace(b'"cfo"', b"NaN"), "invalid_json_line", 1),
    "the same id": (GOOD + b"\n\n" + GOOD, "duplicate_custom_id", 3),
    "no id": (b'{"method": "POST"}', "invalid_custom_id", 1),
    "an id that is none": (GOOD.replace(b'"a"', b"7"), "invalid_custom_id", 1),
    "another method": (GOOD.replace(b"POST", b"GET"), "invalid_method", 1),
    "another url": (GOOD.replace(b"/v1/chat", b"/v2/chat"), "mismatched_url", 1),
    "no body": (b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions"}', "invalid_body", 1),
    "something more": (GOOD[:-1] + b', "x": 1}', "unknown_parameter", 1),
    "nothing": (b"\n \r\n", "empty_file", None),
    "a long line": (GOOD + b"\n" + b"x" * (5 << 20), "line_too_long", 2),
    "too many": (b"{}\n" * 50_001, "invalid_custom_id", 1),
}


async def test_a_file_with_a_fault_fails_whole(openai: AsyncOpenAI, canned: CannedPool) -> None:
    """The batch says what is wrong, and in which line; nothing is asked."""
    for name, (content, code, at) in FAULTS.items():
        batch = await ended(openai, await made(openai, content))
        first = batch.errors.data[0]
        assert ("failed", code, at, True) == (batch.status, first.code, first.line, len(batch.errors.data) <= 50), name
        assert (None, None) == (batch.output_file_id, batch.error_file_id), name
    assert [] == canned.requests


async def test_marks_of_editors_are_no_fault(openai: AsyncOpenAI) -> None:
    """A mark before the first line, ends of lines as on Windows, empty lines, none at the end."""
    other = json.dumps(line("b")).encode()
    batch = await ended(openai, await made(openai, b"\xef\xbb\xbf" + GOOD + b"\r\n\r\n" + other))
    assert ("completed", 2, 2, 0) == (batch.status, *counts(batch))


async def test_a_batch_is_cancelled(openai: AsyncOpenAI, canned: CannedPool) -> None:
    """It says so at once, ends soon, and is not cancelled again."""
    canned.delay_s = 30.0
    batch = await made(openai, jsonl(line(f"q{n}") for n in range(5)))
    await until(lambda: canned.requests, every_s=0.05)
    cancelled = await openai.batches.cancel(batch.id)
    assert ("cancelling", True) == (cancelled.status, cancelled.cancelling_at is not None)
    batch = await ended(openai, batch)
    assert ("cancelled", 5, 0, 5) == (batch.status, *counts(batch))
    assert {"batch_cancelled"} == {each["error"]["code"] for each in await read(openai, batch.error_file_id)}
    done = await ended(openai, await made(openai, jsonl([line("no")]).replace(b"POST", b"GET")))
    with pytest.raises(BadRequestError, match="failed"):
        await openai.batches.cancel(done.id)


async def test_the_same_key_again_is_the_same_batch(openai: AsyncOpenAI) -> None:
    """A request whose answer was lost makes no second one; another request under that key is refused."""
    keyed = {"extra_headers": {"Idempotency-Key": "monday"}}
    file = await openai.files.create(file=("in.jsonl", GOOD), purpose="batch")
    fields: dict[str, Any] = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h", **keyed}
    first, again = await openai.batches.create(**fields), await openai.batches.create(**fields)
    assert first.id == again.id
    with pytest.raises(UnprocessableEntityError):
        await made(openai, GOOD, **keyed)


BAD: dict[str, dict[str, Any]] = {
    "endpoint": {"endpoint": "/v1/embeddings"},
    "completion_window": {"completion_window": "soon"},
    "such as 24h": {"completion_window": "8d"},
    "metadata": {"metadata": {"a": "x" * 999}},
    "colour": {"extra_body": {"colour": 1}},
}


async def test_a_bad_request_is_refused(openai: AsyncOpenAI) -> None:
    """By the name of its field."""
    for says, fields in BAD.items():
        with pytest.raises(BadRequestError, match=says):
            await made(openai, GOOD, **{"endpoint": CHAT, "completion_window": "24h", **fields})


async def test_what_is_not_there_is_404(openai: AsyncOpenAI) -> None:
    """A batch, or its file; a file of another purpose is refused."""
    for ask in (openai.batches.retrieve, openai.batches.cancel):
        with pytest.raises(NotFoundError):
            await ask("batch_none")
    with pytest.raises(NotFoundError):
        await openai.batches.create(input_file_id="../x", endpoint=CHAT, completion_window="24h")
    picture = await openai.files.create(file=b"x", purpose="vision")
    with pytest.raises(BadRequestError, match="purpose"):
        await openai.batches.create(input_file_id=picture.id, endpoint=CHAT, completion_window="24h")


async def test_lines_ask_what_their_key_may(canned: CannedPool, tmp_path: Path) -> None:
    """Of another adapter a line hears 404, as any request; jobs are counted under the key's agent."""
    canned.answer("ceo", "Our mission.")
    async with canned.client() as client:
        secret = await client.keys.add("desk", agent="ada", adapters=["ceo"])
        async with gateway(canned, files=str(tmp_path / "files")) as url:
            openai = AsyncOpenAI(base_url=f"{url}/v1", api_key=secret)
            batch = await made(openai, jsonl([line("mine", model="ceo"), line("theirs")]))
            batch = await ended(openai, batch)
            assert (2, 1, 1) == counts(batch)
            [error] = await read(openai, batch.error_file_id)
            assert (404, "theirs") == (error["response"]["status_code"], error["custom_id"])
            await openai.close()
        assert 1 == (await client.agent_stats("ada"))["succeeded"]
