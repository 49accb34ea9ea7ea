"""The forms in which an answer's form is asked for."""

from __future__ import annotations

import pytest

from lorapool.shared.errors import InvalidRequest
from lorapool.shared.response_format import ResponseFormat

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
