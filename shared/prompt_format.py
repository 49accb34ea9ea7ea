"""PromptFormat: how an adapter wants chat messages written, which is how it was trained.

Acts on ``messages`` only: a plain prompt is raw text for every adapter. Part of a version and as immutable. Renders all
but chat templates, which are the tokenizer's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from lorapool.shared.errors import AdapterUnavailable, CheckpointError, InvalidRequest
from lorapool.shared.job import Message
from lorapool.shared.wire import explain_validation

TEMPLATE_NAME = "chat_template.jinja"
MAX_TEMPLATE_BYTES = 64 << 10

Template = Annotated[str, StringConstraints(max_length=MAX_TEMPLATE_BYTES)]
Separator = Annotated[str, StringConstraints(max_length=4096)]


class PromptFormat(BaseModel):
    """``chat``: the adapter's own Jinja ``template``, or the base model's if that is empty. ``raw``: the contents, a
    blank line between them. ``custom``: each user's turn between ``prefix`` and ``suffix``, ``between`` after each of
    the assistant's; a system message leads the next user's turn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["chat", "raw", "custom"] = "chat"
    template: Template = ""
    prefix: Separator = ""
    suffix: Separator = ""
    between: Separator = ""

    @model_validator(mode="after")
    def _of_its_kind(self) -> PromptFormat:
        if self.template and self.kind != "chat":
            raise ValueError(f"a template goes with kind chat, not {self.kind}")
        if (self.prefix or self.suffix or self.between) and self.kind != "custom":
            raise ValueError(f"prefix, suffix and between go with kind custom, not {self.kind}")
        if self.kind == "custom" and not (self.prefix or self.suffix):
            raise ValueError("kind custom needs a prefix or a suffix")
        return self

    @classmethod
    def of(cls, given: PromptFormat | Mapping[str, str] | str) -> PromptFormat:
        """From itself, its fields, or the name of a kind. Raises InvalidRequest."""
        if isinstance(given, PromptFormat):
            return given
        try:
            return cls.model_validate({"kind": given} if isinstance(given, str) else given)
        except ValidationError as error:
            raise InvalidRequest(f"prompt_format: {explain_validation(error)}") from None

    def render(self, messages: Sequence[Message]) -> str:
        """The text of ``raw`` and ``custom``, up to where the assistant's answer begins."""
        if self.kind == "raw":
            return "\n\n".join(message.content for message in messages)
        parts: list[str] = []
        held = ""  # system messages that wait for a user's turn
        for message in messages:
            if message.role == "assistant":
                parts.append(message.content + self.between)
            elif message.role == "system":
                held += f"{message.content}\n\n"
            else:
                parts.append(f"{self.prefix}{held}{message.content}{self.suffix}")
                held = ""
        if held:
            parts.append(f"{self.prefix}{held.rstrip()}{self.suffix}")
        return "".join(parts)


def format_in(folder: Path) -> PromptFormat | None:
    """The chat template that lies beside an adapter's weights, if any. Raises CheckpointError, AdapterUnavailable."""
    path = folder / TEMPLATE_NAME
    try:
        if not path.is_file():
            return None
        if (size := path.stat().st_size) > MAX_TEMPLATE_BYTES:
            raise CheckpointError(f"{path}: {size:,} bytes, the limit is {MAX_TEMPLATE_BYTES:,}")
        text = path.read_text(encoding="utf-8")
    except UnicodeError as error:
        raise CheckpointError(f"{path}: not UTF-8 ({error})") from None
    except OSError as error:
        raise AdapterUnavailable(f"{path}: cannot be read here ({error.strerror})") from None
    return PromptFormat(template=text) if text.strip() else None
