"""polylora: its PolyLoraModel around the base model, decoding greedily with a static cache of its own batch.

It has no ``generate``: prompts are prefilled in one batch, padded on the left (its check for right padding is off:
with it no batch of unequal prompts can decode), then one forward a token. On the CPU it loops over the rows.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from polylora import PolyLoraConfig, PolyLoraModel
from transformers import AutoModelForCausalLM

from benchmarks.peers.padding import padded
from benchmarks.peers.serve import Task, main

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Polylora:
    def __init__(self, task: Task) -> None:
        self.task = task
        base = AutoModelForCausalLM.from_pretrained(task.model, dtype=getattr(torch, task.dtype))
        slots = len(task.adapters) + 1
        config = PolyLoraConfig(slots, task.rank, LINEAR, enforce_right_padding=False)
        self.model = PolyLoraModel(base, config).eval()
        self._loaded = 0

    @torch.inference_mode()
    def run(self, active: int) -> float:
        for index in range(self._loaded, active):
            self.model.load_adapter_from_disk(str(index), self.task.adapters[index])
        self._loaded = max(self._loaded, active)
        chosen = [self.task.adapter_of(index, active) for index in range(len(self.task.prompts))]
        names = ["__base__" if index is None else str(index) for index in chosen]
        ids, mask = padded(self.task.prompts)
        self._forward(ids, mask, None, names)  # brings the adapters into their slots
        start = time.perf_counter()
        cache = None
        for _ in range(self.task.new_tokens):
            out = self._forward(ids, mask, cache, names)
            cache = out.past_key_values
            ids = out.logits[:, -1].argmax(dim=-1, keepdim=True)
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
        return time.perf_counter() - start

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, cache: object, names: list[str]) -> Any:
        positions = (mask.cumsum(1) - 1).clamp_(min=0)[:, -ids.shape[1] :]
        return self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
            logits_to_keep=1, adapter_ids=names,
        )  # fmt: skip


if __name__ == "__main__":
    main(Polylora)
