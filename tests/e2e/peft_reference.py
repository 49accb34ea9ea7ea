"""The oracle: unmerged PEFT in float32, one adapter at a time, on the same base model.

Greedy decoding is checked by one forward over prompt and answer: each token must be the argmax at its own prefix, which
is the same as running PEFT freely, token by token, for as long as all are right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

MARGIN = 1e-4  # of the two best logits: nearer than that, float32 may order them either way


@dataclass(frozen=True)
class Answer:
    """What a worker said: ``adapter`` None is the base model."""

    adapter: str | None
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class Verdict:
    """``wrong``: index of the first token that is not PEFT's; ``excused``: index from which a tie excuses the row."""

    wrong: int | None = None
    excused: int | None = None


class PeftReference:
    """Base model and adapters, loaded once."""

    def __init__(self, base_model: Path, adapters: Path, names: Sequence[str]) -> None:
        base = AutoModelForCausalLM.from_pretrained(str(base_model), dtype=torch.float32)
        self._model: Any = PeftModel.from_pretrained(base, str(adapters / names[0]), adapter_name=names[0])
        for name in names[1:]:
            self._model.load_adapter(str(adapters / name), adapter_name=name)
        self._model.eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(str(base_model))

    def prompt_ids(self, prompt: str | None, messages: Sequence[dict[str, str]] | None) -> tuple[int, ...]:
        """As transformers makes them."""
        if prompt is not None:
            return tuple(self.tokenizer(prompt).input_ids)
        return tuple(self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))

    def verdicts(self, answers: Sequence[Answer]) -> list[Verdict]:
        """In the same order; one forward an adapter."""
        found: dict[int, Verdict] = {}
        for adapter in {answer.adapter for answer in answers}:
            rows = [index for index, answer in enumerate(answers) if answer.adapter == adapter]
            logits = self.logits(adapter, [answers[row].prompt_ids + answers[row].token_ids for row in rows])
            for row, scores in zip(rows, logits, strict=True):
                found[row] = _verdict(scores[len(answers[row].prompt_ids) - 1 :], answers[row].token_ids)
        return [found[index] for index in range(len(answers))]

    @torch.inference_mode()
    def logits(self, adapter: str | None, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """[tokens, vocab] of each row, under that adapter alone. Padding is on the right, where nothing looks at it."""
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        if adapter is None:
            with self._model.disable_adapter():
                logits = self._model(input_ids=ids, attention_mask=mask).logits
        else:
            self._model.set_adapter(adapter)
            logits = self._model(input_ids=ids, attention_mask=mask).logits
        return [logits[index, : len(row)] for index, row in enumerate(rows)]


def _verdict(scores: torch.Tensor, token_ids: Sequence[int]) -> Verdict:
    """``scores[i]`` are the logits that token ``i`` of the answer was chosen by."""
    best = scores.topk(2, dim=-1)
    for index, token_id in enumerate(token_ids):
        if float(best.values[index, 0] - best.values[index, 1]) < MARGIN:
            return Verdict(excused=index)
        if int(best.indices[index, 0]) != token_id:
            return Verdict(wrong=index)
    return Verdict()
