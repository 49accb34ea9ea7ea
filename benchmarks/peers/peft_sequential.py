"""PEFT the naive way: ``set_adapter``, then a static batch of that adapter's requests, one adapter after another."""

from __future__ import annotations

import time

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from benchmarks.peers.padding import padded
from benchmarks.peers.serve import Task, main


class Sequential:
    def __init__(self, task: Task) -> None:
        self.task = task
        base = AutoModelForCausalLM.from_pretrained(task.model, dtype=getattr(torch, task.dtype))
        self.model = PeftModel.from_pretrained(base, task.adapters[0], adapter_name="0")
        self._loaded = 1

    @torch.inference_mode()
    def run(self, active: int) -> float:
        for index in range(self._loaded, active):
            self.model.load_adapter(self.task.adapters[index], adapter_name=str(index))
        self._loaded = max(self._loaded, active)
        self.model.eval()
        start = time.perf_counter()
        for index in range(min(active, len(self.task.prompts))):
            self.model.set_adapter(str(index))
            self._generate(self.task.prompts[index::active])
        return time.perf_counter() - start

    def _generate(self, prompts: list[list[int]]) -> None:
        ids, mask = padded(prompts)
        count = self.task.new_tokens
        self.model.generate(
            input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=count, min_new_tokens=count,
            pad_token_id=0,
        )  # fmt: skip


if __name__ == "__main__":
    main(Sequential)
