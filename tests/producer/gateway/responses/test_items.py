"""Input items, and the chat that they are."""

from __future__ import annotations

from typing import Any

import pytest

from lorapool.producer.gateway.errors import ApiError
from lorapool.producer.gateway.responses.items import input_items, messages_of, with_ids
from lorapool.shared.job import Message
from tests.producer.gateway.responses.judge import ITEM

LOOP: list[dict[str, Any]] = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": [{"type": "input_text", "text": "Cash"}, {"type": "input_text", "text": "?"}]},
    {"type": "message", "id": "msg_9", "role": "assistant", "status": "completed",
     "content": [{"type": "output_text", "text": "I look.", "annotations": [], "logprobs": []}]},
    {"type": "function_call", "id": "fc_9", "call_id": "c1", "name": "cash", "arguments": "{}", "status": "completed"},
    {"type": "function_call", "call_id": "c2", "name": "debt", "arguments": '{"y": 1}'},
    {"type": "function_call_output", "call_id": "c1", "output": "7"},
    {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "8"}]},
]  # fmt: skip


def test_text_is_a_users_message() -> None:
    """A text alone is what the user says."""
    assert [{"role": "user", "content": "Hi"}] == messages_of(input_items("Hi"))


def test_tool_loop_becomes_a_chat() -> None:
    """Calls go with the assistant's words before them; outputs are tool messages; instructions come first."""
    calls = [{"id": "c1", "name": "cash", "arguments": "{}"}, {"id": "c2", "name": "debt", "arguments": '{"y": 1}'}]
    expected = [
        {"role": "system", "content": "You are the CFO."},
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Cash?"},
        {"role": "assistant", "content": "I look.", "tool_calls": calls},
        {"role": "tool", "content": "7", "tool_call_id": "c1"},
        {"role": "tool", "content": "8", "tool_call_id": "c2"},
    ]
    chat = messages_of(input_items(LOOP), "You are the CFO.")
    assert expected == chat
    assert [Message.model_validate(message) for message in chat]


def test_calls_without_words_make_a_message() -> None:
    """A call that follows the user's message is an assistant's with no text."""
    items = input_items([LOOP[1], LOOP[3], LOOP[5]])
    assert ["user", "assistant", "tool"] == [message["role"] for message in messages_of(items)]


def test_stored_items_are_what_openai_lists() -> None:
    """Each item with its id is one that openai's list of input items reads; ids given stay."""
    items = with_ids(input_items(LOOP), "j1")
    assert [item["type"] for item in items] == [ITEM.validate_python(item).type for item in items]
    assert ["msg_j1_0", "msg_j1_1", "msg_9", "fc_9", "fc_j1_4", "fco_j1_5", "fco_j1_6"] == [i["id"] for i in items]


@pytest.mark.parametrize(
    ("given", "where"),
    [
        (None, "input"),
        ([], "input"),
        (7, "input"),
        (["x"], "input[0]"),
        ([{"role": "user"}], "input[0].content"),
        ([{"role": "tool", "content": "x"}], "input[0].role"),
        ([{"type": "reasoning", "summary": []}], "input[0].type"),
        ([{"type": ["x"]}], "input[0].type"),
        ([{"type": "item_reference", "id": "msg_1"}], "input[0].type"),
        ([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}], "input[0].content[0].type"),
        ([{"role": "user", "content": ["x"]}], "input[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "input_text", "text": 1}]}], "input[0].content[0].text"),
        ([{"role": "user", "content": "x", "id": 7}], "input[0].id"),
        ([{"type": "function_call", "call_id": "c", "name": "f"}], "input[0].arguments"),
        ([{"type": "function_call_output", "output": "x"}], "input[0].call_id"),
    ],
)
def test_what_is_not_served_is_named(given: object, where: str) -> None:
    """The 400 names the place."""
    with pytest.raises(ApiError) as refusal:
        input_items(given)
    assert (400, where) == (refusal.value.status, refusal.value.param)
