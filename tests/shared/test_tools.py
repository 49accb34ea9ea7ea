"""Tools as they are given: OpenAI's forms become ours, and what is hostile is refused."""

from __future__ import annotations

from typing import Any

import pytest

from lorapool.shared.errors import InvalidRequest
from lorapool.shared.tools import MAX_DEPTH, Tool, ToolChoice, call_id

FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels - 1):
        schema = {"not": schema}
    return schema


@pytest.mark.parametrize(
    "given", [FUNCTION, {"type": "function", "function": FUNCTION}, {"type": "function", **FUNCTION}, Tool(**FUNCTION)]
)
def test_a_tool_in_each_of_its_forms(given: Any) -> None:
    """Its fields, as the chat API nests them, and as the responses API does not."""
    assert Tool(**FUNCTION) == Tool.of(given)


@pytest.mark.parametrize(
    ("given", "mode", "names"),
    [
        ("required", "required", ()),
        ({"type": "function", "function": {"name": "f"}}, "required", ("f",)),
        ({"type": "function", "name": "f"}, "required", ("f",)),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
            "auto",
            ("f",),
        ),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]},
            "required",
            ("f",),
        ),
    ],
)
def test_a_choice_in_each_of_its_forms(given: Any, mode: str, names: tuple[str, ...]) -> None:
    """A mode, one function, several that are allowed."""
    assert (mode, names) == (ToolChoice.of(given).mode, ToolChoice.of(given).names)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        (nested(MAX_DEPTH + 1), "levels deep"),
        (nested(5_000), "levels deep"),
        ({"type": "array"}, "arguments are an object"),
        ({"type": ["object", "null"]}, "arguments are an object"),
        ({"const": float("inf")}, "expected JSON"),
        ({"const": 2**63}, "integers below"),
        ({"enum": [{1: 2}]}, "expected JSON"),
        ({"const": b"x"}, "expected JSON"),
    ],
)
def test_a_schema_that_is_none_is_refused(parameters: Any, says: str) -> None:
    """Too deep, of no object, no JSON: with the reason."""
    with pytest.raises(InvalidRequest, match=says):
        Tool.of({"name": "f", "parameters": parameters})


def test_a_schema_of_the_greatest_depth_is_taken() -> None:
    """The bound itself."""
    assert nested(MAX_DEPTH) == Tool.of({"name": "f", "parameters": nested(MAX_DEPTH)}).parameters


@pytest.mark.parametrize(
    "given",
    [
        None,
        7,
        [],
        {"type": "function"},
        {"type": "function", "function": []},
        {"name": "f\n"},
        {"name": ""},
        {"name": "ö"},
    ],
)
def test_a_tool_without_a_name_is_refused(given: Any) -> None:
    """Whatever it is instead."""
    with pytest.raises(InvalidRequest, match="tools"):
        Tool.of(given)


@pytest.mark.parametrize(
    "given",
    [
        None,
        "some",
        {"type": "function"},
        {"type": "function", "function": "f"},
        {"type": "function", "function": {"name": ["f"]}},
        {"type": "allowed_tools", "allowed_tools": []},
        {"type": "allowed_tools", "tools": "f"},
        {"type": "allowed_tools", "tools": [7]},
    ],
)
def test_a_choice_that_is_none_is_refused(given: Any) -> None:
    """With the field's name."""
    with pytest.raises(InvalidRequest, match="tool_choice"):
        ToolChoice.of(given)


def test_ids_are_the_same_at_each_attempt() -> None:
    """They come from the job and the call's number alone."""
    assert call_id("j1", 0) == call_id("j1", 0)
    assert len({call_id(job, index) for job in ("j1", "j2") for index in range(3)}) == 6
    assert call_id("j1", 0).startswith("call_")
