"""Text to token ids and back, without torch: the fast tokenizer, and the chat template that came with it.

A raw prompt gets the model's special tokens; messages go through the adapter's own prompt format, or the model's chat
template, with a generation prompt. Decoding is incremental: a piece of text is given once all bytes of its characters
are there. Special tokens are not part of the text; a character that never became whole is dropped. Only loading one
from a folder needs transformers' own classes, and with them torch: ``packed`` takes it to a process that has neither.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as FastTokenizer
from tokenizers.decoders import DecodeStream
from transformers.utils.chat_template_utils import render_jinja_template

from lorapool.shared.errors import BaseModelError, InvalidRequest
from lorapool.shared.job import Job
from lorapool.shared.prompt_format import PromptFormat
from lorapool.worker.text.template_process import TemplateEnded, TemplateProcesses
from lorapool.worker.text.token_bytes import TokenBytes


class StreamDetokenizer:
    """Detokenizer of one sequence, on the fast tokenizer's own stream decoder."""

    def __init__(self, fast: FastTokenizer) -> None:
        self._fast, self._stream = fast, DecodeStream(skip_special_tokens=True)

    def push(self, token_id: int) -> str:
        """Return the text that became certain with this token."""
        return self._stream.step(self._fast, token_id) or ""


class Tokenizer:
    """The base model's tokenizer. ``eos_ids``: every token that ends an answer; ``special``: its special tokens by
    name, which templates may use; ``template``: its chat template, empty if it has none."""

    def __init__(
        self, fast: FastTokenizer, *, special: Mapping[str, Any], template: str, eos_ids: frozenset[int]
    ) -> None:
        fast.no_truncation()
        fast.no_padding()
        self._fast, self._special, self._template, self.eos_ids = fast, dict(special), template, eos_ids
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
            template=tokenizer.get_chat_template() if tokenizer.chat_template else "",
            eos_ids=eos_ids | (frozenset() if own is None else frozenset({int(own)})),
        )

    def packed(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {"fast": self._fast.to_str(), **self.chat_words(), "eos_ids": sorted(self.eos_ids)}

    @classmethod
    def unpacked(cls, data: Mapping[str, Any]) -> Tokenizer:
        """From what ``packed`` gave."""
        fast = FastTokenizer.from_str(data["fast"])
        return cls(fast, special=data["special"], template=data["template"], eos_ids=frozenset(data["eos_ids"]))

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
            ids = self._ids(form.render(job.messages))
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

    def detokenizer(self) -> StreamDetokenizer:
        """Return a new sequence's detokenizer."""
        return StreamDetokenizer(self._fast)

    @cached_property
    def spelling(self) -> TokenBytes:
        """The bytes of its tokens."""
        return TokenBytes(self._fast)

    def _ids(self, text: str, *, special: bool = True) -> list[int]:
        ids: list[int] = self._fast.encode(text, add_special_tokens=special).ids
        return ids

    def _chat(self, job: Job, template: str) -> list[int]:
        messages = [message.model_dump(exclude_defaults=True) for message in job.messages or ()]
        try:
            text = self._foreign(template, messages) if template else self._written(messages)
        except TemplateEnded as error:
            raise TemplateEnded(f"messages do not fit the chat template: {error}") from error
        except Exception as error:  # a template is a program of someone else's: it may raise anything
            raise InvalidRequest(f"messages do not fit the chat template: {error}") from error
        return self._ids(text, special=False)

    def _foreign(self, template: str, messages: list[dict[str, str]]) -> str:
        """By an adapter's template, which may be hostile."""
        return self._templates.render(template, messages, self._special)

    def _written(self, messages: list[dict[str, str]]) -> str:
        """By the base model's own template."""
        if not self._template:
            raise InvalidRequest("the base model has no chat template: send a prompt, or register a prompt format")
        [text], _ = render_jinja_template(
            [messages], chat_template=self._template, add_generation_prompt=True, **self._special
        )
        return str(text)


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
