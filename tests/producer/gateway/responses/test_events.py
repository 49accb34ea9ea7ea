"""A response's events are those of OpenAI's API, and a function of the answer alone."""

from __future__ import annotations

from typing import Any

from lorapool.producer.gateway.caller import ANYONE
from lorapool.producer.gateway.cursor import Piece
from lorapool.producer.gateway.errors import ApiError
from lorapool.producer.gateway.responses import answer
from lorapool.producer.gateway.responses.events import Narrator, since
from lorapool.producer.gateway.responses.items import input_items, with_ids
from lorapool.producer.gateway.responses.request import create_request
from lorapool.shared.job import JobState, Result, Timings, TokenLogprob, Usage
from lorapool.shared.responses.response_record import ResponseRecord
from lorapool.shared.tools import ToolCall, ToolCallDelta
from tests.producer.gateway.responses.judge import EVENT, judged, response

TOOL = {"type": "function", "name": "cash", "description": "Cash at hand"}
ASKED = {"model": "cfo", "input": "Hi", "tools": [TOOL], "metadata": {"k": "v"}}
TOKEN = TokenLogprob(id=5, text=b"Hi", logprob=-0.5, top=(TokenLogprob(id=5, text=b"Hi", logprob=-0.5),))


def record(**fields: Any) -> ResponseRecord:
    request = create_request(ASKED, ANYONE, default_max_tokens=64)
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


def told(pieces: list[Piece], end: Result, of: ResponseRecord | None = None) -> list[dict[str, Any]]:
    narrator = Narrator(of or record())
    events = narrator.opening()
    for piece in pieces:
        events += narrator.tell(piece)
    return events + narrator.finish(end)


def test_text_is_told_as_openai_tells_it() -> None:
    """Created, begun, one delta for each, ended from the inside out, and whole at last."""
    pieces = [Piece("Hi", (TOKEN,)), Piece(" you")]
    events = judged(told(pieces, result(token_logprobs=(TOKEN,))))
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
    narrator = Narrator(record(background=True))
    events = judged(narrator.opening())
    assert ["queued", "queued"] == [event.response.status for event in events]
    assert "response.in_progress" == narrator.tell(Piece("Hi"))[0]["type"]


def test_calls_are_told_one_by_one() -> None:
    """Each call is an item with its arguments as they come; text before them is an item of its own."""
    calls = (ToolCall(id="c1", name="cash", arguments='{"y":1}'), ToolCall(id="c2", name="cash", arguments="{}"))
    begun = [
        ToolCallDelta(index=0, id="c1", name="cash", arguments='{"y"'),
        ToolCallDelta(index=0, arguments=":1}"),
        ToolCallDelta(index=1, id="c2", name="cash", arguments="{}"),
    ]
    pieces = [Piece("I look."), *(Piece(calls=(call,)) for call in begun)]
    end = result(text="I look.", tool_calls=calls)
    events = judged(told(pieces, end))
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
    events = judged(told([Piece("Hi you")], result(finish_reason="length")))
    assert "response.incomplete" == events[-1].type
    assert "max_output_tokens" == events[-1].response.incomplete_details.reason
    assert "incomplete" == events[-1].response.output[0].status


def test_stream_and_record_agree() -> None:
    """The last event's response is the one that is retrieved."""
    end = result(token_logprobs=(TOKEN,))
    events = told([Piece("Hi", (TOKEN,)), Piece(" you")], end)
    assert answer.finished(record(), end) == events[-1]["response"]


def test_error_ends_the_stream() -> None:
    """What cannot go on says so in an event of the API's own form."""
    narrator = Narrator(record())
    narrator.opening()
    error = EVENT.validate_python(narrator.error(ApiError(500, "another text", code="restarted")))
    assert ("error", "restarted", 2) == (error.type, error.code, error.sequence_number)


def test_numbers_do_not_depend_on_how_the_text_comes() -> None:
    """In one piece or many, each event that is no delta has the same number, and a delta the place of its end."""
    many = told([Piece("H"), Piece("i y"), Piece("ou")], result())
    one = told([], result())
    numbers = [
        [(event["type"], event["sequence_number"]) for event in events if "delta" not in event]
        for events in (many, one)
    ]
    assert numbers[0] == numbers[1]
    assert [4, 7, 9] == [event["sequence_number"] for event in many if "delta" in event]


def test_since_cuts_within_a_delta() -> None:
    """After any number comes what is left, to the character."""
    for pieces in ([Piece("Hi you")], [Piece("H"), Piece("i you")]):
        events = told(pieces, result())
        for after in range(-1, events[-1]["sequence_number"]):
            left = [event for told_ in events if (event := since(told_, after)) is not None]
            had = min(6, max(0, after - 3))
            assert "Hi you"[had:] == "".join(event.get("delta", "") for event in left)


def test_sign_of_life_moves_no_number() -> None:
    """A ping has the number before it, so that resuming after it misses nothing."""
    narrator = Narrator(record())
    last = [*narrator.opening(), *narrator.tell(Piece("Hi"))][-1]
    assert last["sequence_number"] == judged([narrator.ping()])[0].sequence_number
    assert last["sequence_number"] + 1 == narrator.tell(Piece("!"))[0]["sequence_number"]


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
