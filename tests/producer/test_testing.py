"""lorapool.producer.testing, used as its users do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lorapool.producer import Client, JobFailed, Result
from lorapool.producer.sync import Client as SyncClient
from lorapool.producer.testing import lorapool_pool, lorapool_server
from lorapool.producer.testing.canned import CannedFailure, CannedPool, CannedRequest
from lorapool.producer.testing.canned_reply import CannedCall

__all__ = ["lorapool_pool", "lorapool_server"]


async def test_answers_are_those_that_were_canned(lorapool_pool: CannedPool) -> None:
    """A text, by prompt, from a function, for the base model; `Client()` finds the pool by itself."""
    lorapool_pool.answer("cfo", "Eleven months.", aliases=["CFO", "ceo.finance"])
    lorapool_pool.answer("cto", {"Ship it?": "No."})
    lorapool_pool.answer("ceo", lambda request: f"{request.agent} asked: {request.text}")
    lorapool_pool.answer(None, "I am the base model.")
    async with Client(agent="board-7") as pool:
        asked = ["cfo", "ceo.finance", "cto", "ceo", None]
        answers = await pool.volley("Ship it?", asked, timeout=10)
    assert ["Eleven months.", "Eleven months.", "No.", "board-7 asked: Ship it?", "I am the base model."] == [
        answer.text for answer in answers if isinstance(answer, Result)
    ]
    assert {"cfo", "cto", "ceo", None} == {request.adapter for request in lorapool_pool.requests}
    assert {"board-7"} == {request.agent for request in lorapool_pool.requests}


async def test_calls_of_tools_are_answers_too(lorapool_pool: CannedPool) -> None:
    """A loop of two rounds as an agent runs it: the call, streamed in pieces, then a text on what came of it."""
    lorapool_pool.answer("cfo", {"Rain?": ["I ask. ", CannedCall("weather", {"city": "Köln"})], "18 °C": "Dry."})
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Rain?"}]
    tools = [{"name": "weather", "parameters": {"type": "object"}}]
    async with lorapool_pool.client() as pool:
        job = await pool.submit("cfo", messages=messages, tools=tools, stream=True)
        pieces = [piece async for delta in job.stream(10) for piece in delta.more.tool_calls]
        first = await job.result(10)
        [call] = first.tool_calls
        assert ("I ask. ", "weather", '{"city": "K\\u00f6ln"}') == (first.text, call.name, call.arguments)
        assert (call.id, call.name, call.arguments) == (
            pieces[0].id, pieces[0].name, "".join(piece.arguments for piece in pieces)
        )  # fmt: skip
        messages.append({"role": "assistant", "content": first.text, "tool_calls": [call.model_dump()]})
        messages.append({"role": "tool", "content": "18 °C", "tool_call_id": call.id})
        assert "Dry." == (await (await pool.submit("cfo", messages=messages, tools=tools)).result(10)).text


async def test_failures_come_on_demand(lorapool_pool: CannedPool) -> None:
    """So many times, then answers again; from a function; and for a prompt that nobody thought of."""
    lorapool_pool.answer("cfo", "Eleven months.")
    lorapool_pool.fail("cfo", "OutOfMemory", "no room", times=2)
    lorapool_pool.answer("cto", {"Ship it?": "No."})

    def refuse(request: CannedRequest) -> str:
        raise CannedFailure("PromptTooLong", f"{len(request.text)} letters")

    lorapool_pool.answer("ceo", refuse)
    async with lorapool_pool.client() as pool:
        for _ in range(2):
            with pytest.raises(JobFailed, match="OutOfMemory: no room"):
                await (await pool.submit("cfo", "x")).result(10)
        assert "Eleven months." == (await (await pool.submit("cfo", "x")).result(10)).text
        with pytest.raises(JobFailed, match="PromptTooLong: 1 letters"):
            await (await pool.submit("ceo", "x")).result(10)
        with pytest.raises(JobFailed, match="no answer to 'x'; there are some to 'Ship it"):
            await (await pool.submit("cto", "x")).result(10)


async def test_log_probabilities_come_where_they_are_asked_for(lorapool_pool: CannedPool) -> None:
    """In the result and, each once, in the stream; a prompt of token ids is answered like its numbers."""
    lorapool_pool.answer("cfo", {"5 6": "Eleven months of runway."})
    asked = {"prompt_ids": [5, 6], "logprobs": True, "top_logprobs": 2}
    async with lorapool_pool.client() as pool:
        job = await pool.submit("cfo", stream=True, **asked)
        streamed = [token async for delta in job.stream(10) for token in delta.more.logprobs]
        result = await job.result(10)
    assert result.token_logprobs == tuple(streamed)
    assert result.text.encode() == b"".join(token.text for token in streamed)
    assert [2] * 4 == [len(token.top) for token in streamed]
    assert (2, (-0.5,) * 4) == (result.usage.prompt_tokens, result.logprobs)


async def test_answers_stream_word_by_word(lorapool_pool: CannedPool) -> None:
    """And end where max_new_tokens says."""
    lorapool_pool.answer("cfo", "Eleven months of runway.")
    async with lorapool_pool.client() as pool:
        job = await pool.submit("cfo", "x", stream=True, max_new_tokens=3)
        assert ["Eleven", " months", " of"] == [delta.text async for delta in job.stream(10)]
        assert ("length", 3) == ((await job.result(10)).finish_reason, (await job.result(10)).usage.completion_tokens)


async def test_a_slow_answer_can_be_cancelled(lorapool_pool: CannedPool) -> None:
    """As a real one."""
    lorapool_pool.answer("cfo", "Eleven months.")
    lorapool_pool.delay_s = 60
    async with lorapool_pool.client() as pool:
        job = await pool.submit("cfo", "x")
        await job.cancel()
        with pytest.raises(Exception, match="cancelled"):
            await job.result(10)


def test_code_without_an_event_loop_is_served_too(lorapool_pool: CannedPool, tmp_path: Path) -> None:
    """The blocking client; and an adapter that the code under test registers itself is ready at once."""
    with SyncClient() as pool:
        pool.adapters.register("own", "s3://bucket/own", digest="d" * 64)
        assert "no answer was canned for own" == pool.submit("own", "x").result(10).text
        assert ["canned"] == [worker["worker"] for worker in pool.workers()]


def test_a_users_test_suite_opts_in_with_one_line(tmp_path: Path) -> None:
    """In a project that knows nothing of ours: the plugin brings server, pool and environment."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["lorapool.producer.testing"]\n')
    (tmp_path / "test_board.py").write_text(
        "from lorapool.producer.sync import Client\n\n"
        "def test_board(lorapool_pool):\n"
        "    lorapool_pool.answer('cfo', 'Eleven months.')\n"
        "    with Client() as pool:\n"
        "        assert pool.submit('cfo', 'Runway?').result(10).text == 'Eleven months.'\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    outcome = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert 0 == outcome.returncode, outcome.stdout + outcome.stderr
    assert "1 passed" in outcome.stdout
