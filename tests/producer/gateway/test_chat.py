"""Chats: what is asked reaches the queue as it was meant, and what comes back is what OpenAI's client reads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from lorapool.producer.testing.canned import CannedPool
from tests.producer.gateway.conftest import RUNWAY
from tests.producer.gateway.events import chunks_of, content, events_of

ASK: dict[str, Any] = {"model": "cfo", "messages": [{"role": "user", "content": "How long?"}]}


@pytest.fixture
async def openai(url: str) -> AsyncIterator[Any]:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def test_openai_reads_an_answer(openai: Any) -> None:
    """openai's client gets the text, the usage and the fingerprint of the weights."""
    answer = await openai.chat.completions.create(model="money", messages=ASK["messages"])
    assert RUNWAY == answer.choices[0].message.content
    assert ("stop", 2, 5) == (
        answer.choices[0].finish_reason,
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
    )
    assert answer.model == "money" and answer.system_fingerprint.startswith("fp_")


async def test_openai_reads_a_stream(openai: Any) -> None:
    """A role first, the text, why it ended, and the usage last, with no choices."""
    stream = await openai.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert "assistant" == chunks[0].choices[0].delta.role
    assert RUNWAY == "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert "stop" == chunks[-2].choices[0].finish_reason
    assert [] == chunks[-1].choices and chunks[-1].usage.completion_tokens == 5
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_what_is_asked_reaches_the_job(http: httpx.AsyncClient, canned: CannedPool) -> None:
    """Every parameter of the API is the job's, by its name there."""
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}, "strict": None}}
    body = {
        **ASK,
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}]},
            {"role": "user", "content": "Look."},
            {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "seen"},
        ],
        "seed": -1,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["\n"],
        "frequency_penalty": 1,
        "presence_penalty": -1,
        "logit_bias": {"5": -100},
        "max_completion_tokens": 7,
        "logprobs": True,
        "top_logprobs": 2,
        "tools": [tool],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "response_format": {"type": "text"},
        "user": "board-7",
        "priority": "high",
        "top_k": 40,
        "min_tokens": 1,
        "store": True,
        "service_tier": "auto",
        "modalities": ["text"],
    }
    answer = await http.post("/v1/chat/completions", json=body)
    assert 200 == answer.status_code, answer.text
    [request] = canned.requests
    job, params = request.job, request.job.params
    assert [("system", "Be\nbrief."), ("user", "Look."), ("assistant", ""), ("tool", "seen")] == [
        (message.role, message.content) for message in job.messages
    ]
    assert ("c1", "look", "{}") == tuple(job.messages[2].tool_calls[0].model_dump().values())
    assert (0.5, 0.9, ("\n",), 1.0, -1.0, ((5, -100.0),), 7, 1, 40) == (
        params.temperature,
        params.top_p,
        params.stop,
        params.frequency_penalty,
        params.presence_penalty,
        params.logit_bias,
        params.max_new_tokens,
        params.min_new_tokens,
        params.top_k,
    )
    assert (True, 2, 2**63 - 1) == (params.logprobs, params.top_logprobs, params.seed)
    assert ("look", "required", False) == (job.tools[0].name, job.tool_choice.mode, job.parallel_tool_calls)
    assert ("board-7", "high") == (job.agent, job.priority)


async def test_defaults_are_openais(http: httpx.AsyncClient, canned: CannedPool) -> None:
    """Temperature 1, no seed, and room for a long answer."""
    await http.post("/v1/chat/completions", json=ASK)
    [request] = canned.requests
    assert (1.0, None, 2048) == (
        request.job.params.temperature,
        request.job.params.seed,
        request.job.params.max_new_tokens,
    )


async def test_headers_prove_what_wrote_it(http: httpx.AsyncClient, canned: CannedPool) -> None:
    """Job, ref, digest, worker and attempt stand in the answer's headers, and its id is asked back as sent."""
    answer = await http.post("/v1/chat/completions", json=ASK, headers={"x-request-id": "mine-1"})
    told = {name: answer.headers[f"x-lorapool-{name}"] for name in ("adapter", "worker", "attempt", "job-id")}
    assert {"adapter": "cfo@1", "worker": "canned", "attempt": "1", "job-id": canned.requests[0].job_id} == told
    assert answer.json()["system_fingerprint"] == f"fp_{answer.headers['x-lorapool-digest'][:12]}"
    assert "mine-1" == answer.headers["x-request-id"]


async def test_several_answers_have_seeds_of_their_own(http: httpx.AsyncClient, canned: CannedPool) -> None:
    """n answers are n jobs; a seed goes on by one from each to the next; the prompt is counted once."""
    answer = await http.post("/v1/chat/completions", json={**ASK, "n": 3, "seed": 5})
    assert [0, 1, 2] == [choice["index"] for choice in answer.json()["choices"]]
    assert [5, 6, 7] == sorted(request.job.params.seed or 0 for request in canned.requests)
    assert {"prompt_tokens": 2, "completion_tokens": 15, "total_tokens": 17} == answer.json()["usage"]


async def test_several_streams_interleave_by_index(http: httpx.AsyncClient) -> None:
    """Each of two streamed answers is whole, and has its own end with its proof."""
    answer = await http.post("/v1/chat/completions", json={**ASK, "n": 2, "stream": True})
    chunks = chunks_of(answer.text)
    assert [RUNWAY, RUNWAY] == [content(chunks, index) for index in range(2)]
    ends = [chunk for chunk in chunks if "lorapool" in chunk]
    assert {0, 1} == {chunk["choices"][0]["index"] for chunk in ends}
    assert 2 == len({chunk["lorapool"]["job_id"] for chunk in ends})
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk)


async def test_metadata_comes_back(http: httpx.AsyncClient) -> None:
    """Notes of the caller are part of the answer."""
    answer = await http.post("/v1/chat/completions", json={**ASK, "metadata": {"run": "7"}})
    assert {"run": "7"} == answer.json()["metadata"]
    ChatCompletion.model_validate(answer.json())


async def test_a_failed_job_is_not_asked_again(http: httpx.AsyncClient, canned: CannedPool) -> None:
    """500 with the worker's word, and the header that keeps openai's client from sending it again."""
    canned.fail("cfo", "Broken", "no tensor applies")
    answer = await http.post("/v1/chat/completions", json=ASK)
    assert (500, "Broken", "false") == (
        answer.status_code,
        answer.json()["error"]["code"],
        answer.headers["x-should-retry"],
    )


async def test_a_prompt_too_long_is_the_callers(openai: Any, canned: CannedPool) -> None:
    """400 with OpenAI's own code."""
    canned.fail("cfo", "PromptTooLong", "9000 tokens exceed 2048")
    with pytest.raises(BadRequestError) as refused:
        await openai.chat.completions.create(**ASK)
    assert ("context_length_exceeded", "9000 tokens exceed 2048") == (refused.value.code, refused.value.body["message"])


async def test_an_error_within_a_stream(http: httpx.AsyncClient, canned: CannedPool) -> None:
    """A job that fails after its stream began: the error is the last event, in the API's form, and no end."""
    canned.fail("cfo", "Broken", "it broke")
    answer = await http.post("/v1/chat/completions", json={**ASK, "stream": True})
    events = events_of(answer.text)
    assert (200, "Broken") == (answer.status_code, events[-1].data["error"]["code"])


async def test_unknown_is_never_another(openai: Any, canned: CannedPool) -> None:
    """404 with the nearest names; the base model is asked by its own name alone."""
    with pytest.raises(NotFoundError, match="did you mean cfo") as unknown:
        await openai.chat.completions.create(**{**ASK, "model": "cfoo"})
    assert "model_not_found" == unknown.value.code
    for name in ("canned", "_base"):
        answer = await openai.chat.completions.create(**{**ASK, "model": name})
        assert "The base model says so." == answer.choices[0].message.content
    assert 2 == len(canned.requests)
