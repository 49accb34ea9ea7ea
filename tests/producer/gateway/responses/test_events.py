"""A response's events are those of OpenAI's API, and a function of the job's deltas alone."""

from __future__ import annotations

from typing import Any

from lorapool.producer.client.stream import TextDelta
from lorapool.producer.gateway.responses import answer
from lorapool.producer.gateway.responses.events import Narrator
from lorapool.producer.gateway.responses.items import input_items, with_ids
from lorapool.producer.gateway.responses.request import create_request
from lorapool.shared.job import JobState, More, Result, Timings, TokenLogprob, ToolCall, ToolCallDelta, Usage
from lorapool.shared.responses.response_record import ResponseRecord
from tests.producer.gateway.responses.judge import judged, response

TOOL = {"type": "function", "name": "cash", "description": "Cash at hand"}
TOKEN = TokenLogprob(id=5, text=b"Hi", logprob=-0.5, top=(TokenLogprob(id=5, text=b"Hi", logprob=-0.5),))


def record(**fields: Any) -> ResponseRecord:
    request = create_request({"model": "cfo", "input": "Hi", "tools": [TOOL], "metadata": {"k": "v"}})
    items = tuple(with_ids(input_items("Hi"), "j1"))
    return ResponseRecord(
        **{"id": "j1", "agent": "a", "created_ms": 7_000, "echo": request.echo, "items": items, **fields}
    )


def result(**fields: Any) -> Result:
    values = {
        "job_id": "0.j1", "text": "Hi you", "finish_reason": "eos_token",
        "usage": Usage(prompt_tokens=3, completion_tokens=2), "timings": Timings(total_ms=2_500), "adapter": "cfo@1",
        "digest": "ab", "agent": "a", "attempts": 1, "worker": "w", "device": "cpu", "dtype": "float32", "seed": 1,
        "resident": True, **fields,
    }  # fmt: skip
    return Result.model_validate(values)


def told(deltas: list[TextDelta], end: Result, of: ResponseRecord | None = None) -> list[dict[str, Any]]:
    narrator = Narrator(of or record())
    events = narrator.opening()
    for delta in deltas:
        events += narrator.tell(delta)
    return events + narrator.finish(end)


def test_text_is_told_as_openai_tells_it() -> None:
    """Created, begun, one delta for each, ended from the inside out, and whole at last."""
    deltas = [TextDelta("Hi", (5,), more=More((TOKEN,))), TextDelta(" you", (6,))]
    events = judged(told(deltas, result(token_logprobs=(TOKEN,))))
    assert [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
        "response.output_text.delta", "response.output_text.delta", "response.output_text.done",
        "response.content_part.done", "response.output_item.done", "response.completed",
    ] == [event.type for event in events]  # fmt: skip
    assert "Hi you" == events[-1].response.output_text == events[6].text
    assert ("Hi", -0.5) == (events[4].logprobs[0].token, events[4].logprobs[0].logprob)
    assert (3, 2, 5) == (
        events[-1].response.usage.input_tokens, events[-1].response.usage.output_tokens,
        events[-1].response.usage.total_tokens,
    )  # fmt: skip


def test_background_begins_queued() -> None:
    """One in the background is queued first, and says so."""
    events = judged(Narrator(record(background=True)).opening())
    assert ["queued", "queued", "in_progress"] == [event.response.status for event in events]


def test_calls_are_told_one_by_one() -> None:
    """Each call is an item with its arguments as they come; text before them is an item of its own."""
    calls = (ToolCall(id="c1", name="cash", arguments='{"y":1}'), ToolCall(id="c2", name="cash", arguments="{}"))
    pieces = [
        ToolCallDelta(index=0, id="c1", name="cash", arguments='{"y"'),
        ToolCallDelta(index=0, arguments=":1}"),
        ToolCallDelta(index=1, id="c2", name="cash", arguments="{}"),
    ]
    deltas = [TextDelta("I look."), *(TextDelta("", more=More((), (piece,))) for piece in pieces)]
    end = result(text="I look.", tool_calls=calls)
    events = judged(told(deltas, end))
    final = events[-1].response
    assert ["message", "function_call", "function_call"] == [item.type for item in final.output]
    assert ['{"y":1}', "{}"] == [item.arguments for item in final.output[1:]]
    added = [event.item.id for event in events if event.type == "response.output_item.added"]
    assert added == [item.id for item in final.output]
    assert ['{"y"', ":1}", "{}"] == [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    assert final.output == response(answer.finished(record(), end)).output


def test_call_that_no_delta_brought_is_told_at_the_end() -> None:
    """What only the result has is told too, and no empty message beside it."""
    end = result(text="", tool_calls=(ToolCall(id="c1", name="cash", arguments="{}"),))
    events = judged(told([], end))
    assert ["function_call"] == [item.type for item in events[-1].response.output]
    assert ["{}"] == [e.arguments for e in events if e.type == "response.function_call_arguments.done"]


def test_empty_answer_is_an_empty_message() -> None:
    """An answer of nothing has the item that ``retrieve`` shows."""
    end = result(text="")
    assert told([], end)[-1]["response"]["output"] == answer.finished(record(), end)["output"]


def test_cut_answer_is_incomplete() -> None:
    """What met max_output_tokens says so, in the event's name, the response and the item."""
    events = judged(told([TextDelta("Hi you")], result(finish_reason="length")))
    assert "response.incomplete" == events[-1].type
    assert "max_output_tokens" == events[-1].response.incomplete_details.reason
    assert "incomplete" == events[-1].response.output[0].status


def test_stream_and_record_agree() -> None:
    """The last event's response is the one that is retrieved."""
    end = result(token_logprobs=(TOKEN,))
    events = told([TextDelta("Hi", more=More((TOKEN,))), TextDelta(" you")], end)
    assert answer.finished(record(), end) == events[-1]["response"]


def test_attempt_that_says_otherwise_ends_the_stream() -> None:
    """What was streamed is not taken back: an error says where the whole is."""
    narrator = Narrator(record())
    narrator.opening()
    narrator.tell(TextDelta("Hi"))
    [error] = judged(narrator.tell(TextDelta("Ho", restart=True)))
    assert ("error", "server_error") == (error.type, error.code)


def test_restart_before_anything_was_told_is_none() -> None:
    """The first text of a later attempt begins as any."""
    narrator = Narrator(record())
    narrator.opening()
    assert "response.output_text.delta" == narrator.tell(TextDelta("Ho", restart=True))[-1]["type"]


def test_sign_of_life_moves_no_number() -> None:
    """A ping has the number before it, so that resuming after it misses nothing."""
    narrator = Narrator(record())
    last = [*narrator.opening(), *narrator.tell(TextDelta("Hi"))][-1]
    assert last["sequence_number"] == judged([narrator.ping()])[0].sequence_number
    assert last["sequence_number"] + 1 == narrator.tell(TextDelta("!"))[0]["sequence_number"]


def test_every_state_is_a_response_that_openai_reads() -> None:
    """Queued, running, cancelled, failed: each with the words that its clients know."""
    states = [JobState.DELAYED, JobState.QUEUED, JobState.RUNNING, JobState.CANCELLED]
    assert ["queued", "queued", "in_progress", "cancelled"] == [
        response(answer.unfinished(record(), state)).status for state in states
    ]
    failed = response(answer.failed(record(), "PromptTooLong", "too long"))
    assert ("failed", "invalid_prompt", "too long") == (failed.status, failed.error.code, failed.error.message)
    assert "server_error" == response(answer.failed(record(), "KernelPanic", "")).error.code
    assert {"k": "v"} == failed.metadata
    assert "cash" == failed.tools[0].name
