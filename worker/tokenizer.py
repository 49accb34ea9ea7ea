"""Text to token ids and back; the only user of transformers' tokenizers.

A raw prompt gets the model's special tokens; messages go through the adapter's own prompt format, or the model's chat
template, with a generation prompt.
Decoding is incremental: a piece of text is given once all bytes of its characters are there. Special tokens are
not part of the text; a character that never became whole is dropped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as FastTokenizer
from tokenizers.decoders import DecodeStream
from transformers import AutoTokenizer

from lorapool.shared.errors import BaseModelError, CheckpointError, InvalidRequest
from lorapool.shared.job import Job, Message
from lorapool.shared.prompt_format import PromptFormat
from lorapool.worker.template_process import TemplateProcess


class StreamDetokenizer:
    """Detokenizer of one sequence, on the fast tokenizer's own stream decoder."""

    def __init__(self, fast: FastTokenizer) -> None:
        self._fast, self._stream = fast, DecodeStream(skip_special_tokens=True)

    def push(self, token_id: int) -> str:
        """Return the text that became certain with this token."""
        return self._stream.step(self._fast, token_id) or ""


class Tokenizer:
    """The base model's tokenizer. ``eos_ids``: every token that ends an answer."""

    def __init__(self, tokenizer: Any, eos_ids: frozenset[int] = frozenset()) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise BaseModelError(f"the base model's tokenizer {type(tokenizer).__name__} has no tokenizer.json form")
        self._tokenizer = tokenizer
        self._templates = TemplateProcess()
        self._fast: FastTokenizer = tokenizer.backend_tokenizer
        own = tokenizer.eos_token_id
        self.eos_ids = eos_ids | (frozenset() if own is None else frozenset({int(own)}))

    @classmethod
    def from_folder(cls, folder: Path | str) -> Tokenizer:
        """Load from a checkpoint folder. Raises BaseModelError if there is none that works."""
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise BaseModelError(f"no usable tokenizer in {folder}: {error}") from error
        return cls(tokenizer, _generation_eos(Path(folder)))

    def encode(self, job: Job, form: PromptFormat | None = None) -> list[int]:
        """Return the prompt's token ids; ``form`` is the adapter's own way to write messages.

        Raises InvalidRequest for an empty prompt or a template that refuses.
        """
        if job.messages is None:
            ids = self._tokenizer(job.prompt).input_ids
        elif form is None or form.kind == "chat":
            ids = self._chat(job, form.template if form else "")
        else:
            ids = self._tokenizer(form.render(job.messages)).input_ids
        if not ids:
            raise InvalidRequest("prompt is empty: it has no tokens")
        return [int(token) for token in ids]

    def try_format(self, form: PromptFormat | None) -> None:
        """Raises CheckpointError if an adapter's prompt format cannot write a first message."""
        job = Job(id="trial", ref="_base", messages=(Message(role="user", content="How long is our runway?"),))
        try:
            self.encode(job, form)
        except InvalidRequest as error:
            if form is not None:
                raise CheckpointError(f"prompt format: {error}") from None

    def decode(self, ids: list[int]) -> str:
        """Return the text of a whole answer, special tokens left out."""
        return str(self._fast.decode(ids, skip_special_tokens=True))

    def detokenizer(self) -> StreamDetokenizer:
        """Return a new sequence's detokenizer."""
        return StreamDetokenizer(self._fast)

    def _chat(self, job: Job, template: str) -> list[int]:
        messages = [message.model_dump() for message in job.messages or ()]
        try:
            if template:  # an adapter's: it may be hostile
                text = self._templates.render(template, messages, self._tokenizer.special_tokens_map)
                return list(self._tokenizer(text, add_special_tokens=False).input_ids)
            ids: list[int] = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=True, return_dict=False
            )
        except Exception as error:  # a template is a program of someone else's: it may raise anything
            raise InvalidRequest(f"messages do not fit the chat template: {error}") from error
        return ids


def _generation_eos(folder: Path) -> frozenset[int]:
    """End tokens named by generation_config.json and config.json; a model may have several."""
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        value = json.loads(path.read_text()).get("eos_token_id") if path.is_file() else None
        found |= {value} if isinstance(value, int) else set(value or ())
    return frozenset(found)
