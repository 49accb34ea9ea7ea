"""How messages become text for an adapter that was not trained on the base model's chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lorapool.shared.errors import CheckpointError, InvalidRequest
from lorapool.shared.job import Message
from lorapool.shared.prompt_format import MAX_TEMPLATE_BYTES, PromptFormat, format_in

FOUNDER = PromptFormat(kind="custom", suffix="\n###\n", between="\n")
BRACKETS = PromptFormat(kind="custom", prefix="[Q] ", suffix=" [A] ")


@pytest.mark.parametrize(
    ("form", "turns", "expected"),
    [
        ("raw", ["user:Why?"], "Why?"),
        ("raw", ["system:Be brief.", "user:Why?"], "Be brief.\n\nWhy?"),
        (FOUNDER, ["user:Why?"], "Why?\n###\n"),
        (FOUNDER, ["user:Why?", "assistant:So.", "user:How?"], "Why?\n###\nSo.\nHow?\n###\n"),
        (BRACKETS, ["system:Be brief.", "user:Why?"], "[Q] Be brief.\n\nWhy? [A] "),
        (BRACKETS, ["user:Why?", "system:Be kind.", "user:How?"], "[Q] Why? [A] [Q] Be kind.\n\nHow? [A] "),
        (BRACKETS, ["user:Why?", "system:Be brief."], "[Q] Why? [A] [Q] Be brief. [A] "),
    ],
)
def test_messages_are_written_as_the_format_says(form: PromptFormat | str, turns: list[str], expected: str) -> None:
    """Every turn in its separators, the answer's place at the end."""
    messages = [Message(role=role, content=text) for role, text in (turn.split(":", 1) for turn in turns)]
    assert expected == PromptFormat.of(form).render(messages)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("jinja", "'chat', 'raw' or 'custom'"),
        ({"kind": "custom"}, "needs a prefix or a suffix"),
        ({"kind": "raw", "prefix": "x"}, "go with kind custom"),
        ({"kind": "custom", "prefix": "x", "template": "{{ x }}"}, "goes with kind chat"),
        ({"kind": "chat", "template": "x" * (MAX_TEMPLATE_BYTES + 1)}, "at most"),
        ({"form": "chat"}, "form"),
    ],
)
def test_a_format_that_makes_no_sense_is_refused(given: Any, said: str) -> None:
    """Where it is given, and with what is wrong."""
    with pytest.raises(InvalidRequest, match=said):
        PromptFormat.of(given)


def test_the_template_beside_the_weights_is_found(tmp_path: Path) -> None:
    """None where there is none; too large a one is refused unread."""
    assert format_in(tmp_path) is None
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert PromptFormat(template="{{ messages[0].content }}") == format_in(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("x" * (MAX_TEMPLATE_BYTES + 1))
    with pytest.raises(CheckpointError, match="limit"):
        format_in(tmp_path)
