"""Text to token ids and back, without torch: the fast tokenizer, and the chat template that came with it.

A raw prompt gets the model's special tokens; messages go through the adapter's own prompt format, or the model's chat
template, with a generation prompt. Decoding is incremental: a piece of text is given once all bytes of its characters
are there. Special tokens are not part of the text, but for marks of tool calls where there are tools; a character that
never became whole is dropped. Only loading one from a folder needs transformers' own classes, and with them torch:
``packed`` takes it to a process that has neither.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as FastTokenizer
from tokenizers.decoders import DecodeStream

from lorapool.shared.errors import BaseModelError, InvalidRequest
from lorapool.shared.job import Job, Message
from lorapool.shared.prompt_format import PromptFormat
from lorapool.worker.text import chat_template
from lorapool.worker.text.call_marks import call_marks
from lorapool.worker.text.chat import Chat, chat_of, written
from lorapool.worker.text.response_template import ResponseTemplate
from lorapool.worker.text.template_process import TemplateEnded, TemplateProcesses
from lorapool.worker.text.token_bytes import TokenBytes
from lorapool.worker.text.tool_use import ToolUse, tool_use


class StreamDetokenizer:
    """Detokenizer of one sequence, on the fast tokenizer's own stream decoder. ``marks``: the special tokens that are
    text all the same."""

    def __init__(self, fast: FastTokenizer, marks: Mapping[int, str]) -> None:
        self._fast, self._stream, self._marks = fast, DecodeStream(skip_special_tokens=True), marks

    def push(self, token_id: int) -> str:
        """Return the text that became certain with this token."""
        return (self._stream.step(self._fast, token_id) or "") + self._marks.get(token_id, "")


class Tokenizer:
    """The base model's tokenizer. ``eos_ids``: every token that ends an answer; ``special``: its special tokens by
    name, which templates may use; ``template``: its chat template, empty if it has none; ``tool_template``: the one for
    chats with tools, where that is another; ``response``: its response template, if any."""

    def __init__(
        self,
        fast: FastTokenizer,
        *,
        special: Mapping[str, Any],
        template: str,
        eos_ids: frozenset[int],
        tool_template: str = "",
        response: Any = None,
    ) -> None:
        fast.no_truncation()
        fast.no_padding()
        self._fast, self._special, self._template, self.eos_ids = fast, dict(special), template, eos_ids
        self._tool_template, self._spec, self._response = tool_template, response, ResponseTemplate.of(response)
        self._marks = call_marks(fast, self._response)
        self._templates = TemplateProcesses()

    @classmethod
    def from_folder(cls, folder: Path | str) -> Tokenizer:
        """Load from a checkpoint folder. Raises BaseModelError if there is none that works."""
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise BaseModelError(f"no usable tokenizer in {folder}: {error}") from error
        return cls.of(tokenizer, _generation_eos(Path(folder)))

    @classmethod
    def of(cls, tokenizer: Any, eos_ids: frozenset[int] = frozenset()) -> Tokenizer:
        """From one of transformers' fast tokenizers. Raises BaseModelError for any other."""
        if not getattr(tokenizer, "is_fast", False):
            raise BaseModelError(f"the base model's tokenizer {type(tokenizer).__name__} has no tokenizer.json form")
        own = tokenizer.eos_token_id
        return cls(
            tokenizer.backend_tokenizer,
            special=tokenizer.special_tokens_map,
            template=_template_of(tokenizer),
            tool_template=_template_of(tokenizer, tools=True),
            response=getattr(tokenizer, "response_template", None),
            eos_ids=eos_ids | (frozenset() if own is None else frozenset({int(own)})),
        )

    def packed(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "fast": self._fast.to_str(),
            **self.chat_words(),
            "eos_ids": sorted(self.eos_ids),
            "tool_template": self._tool_template,
            "response": self._spec,
        }

    @classmethod
    def unpacked(cls, data: Mapping[str, Any]) -> Tokenizer:
        """From what ``packed`` gave."""
        fast = FastTokenizer.from_str(data["fast"])
        return cls(**{**data, "fast": fast, "eos_ids": frozenset(data["eos_ids"])})

    def encode(self, job: Job, form: PromptFormat | None = None) -> list[int]:
        """Return the prompt's token ids; ``form`` is the adapter's own way to write messages. Ids are taken as they
        are: whether there are such tokens, the engine knows.

        Raises InvalidRequest for an empty prompt or a template that refuses.
        """
        if job.prompt_ids is not None:
            ids = list(job.prompt_ids)
        elif job.messages is None:
            ids = self._ids(job.prompt or "")
        elif form is None or form.kind == "chat":
            ids = self._chat(job, form.template if form else "")
        else:
            ids = self._ids(form.render(_messages_of(job)))
        if not ids:
            raise InvalidRequest("prompt is empty: it has no tokens")
        return ids

    def chat_words(self) -> dict[str, Any]:
        """As plain data: ``special`` tokens by name, which templates are given, and the base model's ``template``."""
        return {
            "special": {name: _plain(token) for name, token in self._special.items()}, "template": self._template
        }  # fmt: skip

    def decode(self, ids: list[int]) -> str:
        """Return the text of a whole answer, special tokens left out."""
        return str(self._fast.decode(ids, skip_special_tokens=True))

    def detokenizer(self, *, tools: bool = False) -> StreamDetokenizer:
        """Return a new sequence's detokenizer; with ``tools`` marks of calls are text."""
        return StreamDetokenizer(self._fast, self._marks.hidden if tools else {})

    def tool_use(self, job: Job, job_id: str, form: PromptFormat | None = None) -> ToolUse | None:
        """What the job's tools ask of its answer; None where it may call none."""
        if not job.tools or job.tool_choice.mode == "none":
            return None
        own = form is None or (form.kind == "chat" and form.template in {"", self._template})
        shown = own and "tools" in chat_template.words_of(self._tool_template or self._template)
        return tool_use(job, job_id, self._response if shown else None, self._marks)

    @cached_property
    def spelling(self) -> TokenBytes:
        """The bytes of its tokens."""
        return TokenBytes(self._fast)

    def _ids(self, text: str, *, special: bool = True) -> list[int]:
        ids: list[int] = self._fast.encode(text, add_special_tokens=special).ids
        return ids

    def _chat(self, job: Job, template: str) -> list[int]:
        chat = chat_of(job)
        try:
            text = self._foreign(template, chat) if template else self._written(chat)
        except TemplateEnded as error:
            raise TemplateEnded(f"messages do not fit the chat template: {error}") from error
        except Exception as error:  # a template is a program of someone else's: it may raise anything
            raise InvalidRequest(f"messages do not fit the chat template: {error}") from error
        return self._ids(text, special=False)

    def _foreign(self, template: str, chat: Chat) -> str:
        """By an adapter's template, which may be hostile."""
        return self._templates.render(template, chat.messages, self._special, chat.tools)

    def _written(self, chat: Chat) -> str:
        """By the base model's own template."""
        if not self._template:
            raise InvalidRequest("the base model has no chat template: send a prompt, or register a prompt format")
        template = self._tool_template if chat.tools and self._tool_template else self._template
        return chat_template.rendered(template, chat, self._special)


def _messages_of(job: Job) -> Sequence[Message]:
    """For a format that knows no tools."""
    chat = chat_of(job)
    if not (chat.tools or chat.has_calls):
        return job.messages or ()
    return [Message(role=message["role"], content=message["content"]) for message in written(chat)]


def _template_of(tokenizer: Any, *, tools: bool = False) -> str:
    """Its chat template; with ``tools`` the one that is for them alone, where there are several by name."""
    if tools:
        named = tokenizer.chat_template
        return str(named.get("tool_use", "")) if isinstance(named, Mapping) else ""
    return str(tokenizer.get_chat_template()) if tokenizer.chat_template else ""


def _plain(token: Any) -> Any:
    """A special token, or a list of them, as text."""
    return [str(item) for item in token] if isinstance(token, list | tuple) else str(token)


def _generation_eos(folder: Path) -> frozenset[int]:
    """End tokens named by generation_config.json and config.json; a model may have several."""
    ids: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        value = json.loads(path.read_text()).get("eos_token_id") if path.is_file() else None
        ids |= {value} if isinstance(value, int) else set(value or ())
    return frozenset(ids)
