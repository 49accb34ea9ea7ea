"""transformers' own ``generate`` on the base model: one static batch, left padding."""

from __future__ import annotations

import time

import torch
from transformers import AutoModelForCausalLM

from benchmarks.peers.padding import padded
from benchmarks.peers.serve import Task, main


class Static:
    def __init__(self, task: Task) -> None:
        self.task = task
        self.model = AutoModelForCausalLM.from_pretrained(task.model, dtype=getattr(torch, task.dtype)).eval()

    @torch.inference_mode()
    def run(self, active: int) -> float:
        assert active == 0, "the base model only"
        ids, mask = padded(self.task.prompts)
        count = self.task.new_tokens
        start = time.perf_counter()
        self.model.generate(
            input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=count, min_new_tokens=count,
            pad_token_id=0,
        )  # fmt: skip
        return time.perf_counter() - start


if __name__ == "__main__":
    main(Static)
