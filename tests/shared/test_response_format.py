"""The forms in which an answer's form is asked for."""

from __future__ import annotations

import pytest

from lorapool.shared.errors import InvalidRequest
from lorapool.shared.response_format import MAX_DEPTH, ResponseFormat

SCHEMA = {"type": "object"}
TEXT = '{"type": "object"}'


@pytest.mark.parametrize(
    ("given", "kind", "value"),
    [
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}, "json_schema", TEXT),
        ({"type": "json_schema", "name": "x", "schema": SCHEMA}, "json_schema", TEXT),  # of the Responses API
        ({"type": "json_object"}, "json_object", ""),
        ({"type": "json_object", "schema": SCHEMA}, "json_schema", TEXT),  # LoRAX
        ({"type": "json_object", "value": SCHEMA}, "json_schema", TEXT),  # huggingface_hub
        ({"type": "json", "value": SCHEMA}, "json_schema", TEXT),  # TGI
        ({"type": "regex", "value": "a+"}, "regex", "a+"),  # TGI
        ({"type": "regex", "regex": "a+"}, "regex", "a+"),
        ({"type": "choice", "choices": ["a", "b"]}, "choice", '["a", "b"]'),
        ({"kind": "lark", "value": "start: /a+/"}, "lark", "start: /a+/"),
    ],
)
def test_form_is_read(given: dict[str, object], kind: str, value: str) -> None:
    """Each API's own word for it; a schema is never left unheeded."""
    read = ResponseFormat.of(given)
    assert (kind, value) == (read.kind, read.value)


def test_text_is_none() -> None:
    """Any text at all is no form."""
    assert ResponseFormat.of({"type": "text"}) is None


@pytest.mark.parametrize("given", [{}, {"type": "xml"}, {"type": ["json"]}, 7])
def test_junk_is_refused(given: object) -> None:
    """What is no form is named."""
    with pytest.raises(InvalidRequest, match="response_format"):
        ResponseFormat.of(given)


def nested(levels: int) -> dict[str, object]:
    schema: dict[str, object] = {}
    for _ in range(levels - 1):
        schema = {"not": schema}
    return schema


def test_deep_ones_are_refused_without_descending() -> None:
    """As data or as text; the deepest that is taken is taken."""
    assert ResponseFormat.of({"type": "json_schema", "schema": nested(MAX_DEPTH)}) is not None
    for given in (
        {"type": "json_schema", "schema": nested(MAX_DEPTH + 1)},
        {"type": "json_schema", "schema": nested(500)},
        {"kind": "json_schema", "value": '{"a":' * 20_000 + "1" + "}" * 20_000},
    ):
        with pytest.raises(InvalidRequest, match=r"deep|nested|recursion"):
            ResponseFormat.of(given)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"type": "json_schema", "schema": ["object"]}, "expected a JSON object"),
        ({"type": "json_schema", "schema": None}, "expected a JSON object"),
        ({"type": "json_schema", "schema": {"type": "poem"}}, r"schema\.type = 'poem': expected one of array, boolean"),
        ({"type": "json_schema", "schema": {"type": ["null", {}]}}, "expected one of"),
        ({"type": "json_schema", "schema": {"enum": ["x" * 140_000]}}, "at most 131,072 are taken"),
        ({"kind": "json_schema", "value": "{"}, "it is no JSON"),
        ({"type": "regex", "regex": "a" * 20_000}, "at most 16,384"),
        ({"type": "regex", "regex": " "}, "empty"),
        ({"kind": "lark", "value": "x" * 70_000}, "at most 65,536"),
        ({"type": "choice", "choices": []}, "expected 1 to 10,000"),
        ({"type": "choice", "choices": ["a"] * 10_001}, "expected 1 to 10,000"),
        ({"type": "choice", "choices": ["a", ""]}, "none of them empty"),
        ({"type": "choice"}, "expected a list of texts"),
    ],
)
def test_what_is_cheap_to_see_is_refused_at_submission(given: dict[str, object], reason: str) -> None:
    """With the reason; nothing is sent."""
    with pytest.raises(InvalidRequest, match=reason):
        ResponseFormat.of(given)


def test_a_schema_that_contains_itself_is_refused() -> None:
    """Python data may, JSON may not."""
    schema: dict[str, object] = {}
    schema["not"] = schema
    with pytest.raises(InvalidRequest, match="cannot be written as JSON"):
        ResponseFormat.of({"type": "json_schema", "schema": schema})
