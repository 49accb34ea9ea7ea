"""The limit: only the base model's matrix products of the whole run, prefill included.

Same dtype, same threads, same token counts as the workload; no attention, no normalisation, no sampling and no
LoRA. Nothing that computes these products with these kernels can be faster.
"""

from __future__ import annotations

import time

import torch
from transformers import AutoModelForCausalLM

from benchmarks.workload import Workload

Product = tuple[torch.Tensor, bool]  # weight [out, in], and whether only the last token of a sequence needs it


class Limit:
    """Runs the products of ``workload`` with ``max_batch`` rows a decode step."""

    def __init__(self, workload: Workload, dtype: torch.dtype, prefill_rows: int = 512) -> None:
        self.workload = workload
        self.dtype = dtype
        self.prefill_rows = prefill_rows
        self.products = _products(workload, dtype)

    @torch.inference_mode()
    def run(self) -> float:
        """Seconds for one whole run."""
        start = time.perf_counter()
        left = self.workload.prompt_tokens
        while left > 0:
            self._multiply(min(left, self.prefill_rows), last_only=False)
            left -= self.prefill_rows
        rows = len(self.workload.prompts)
        self._multiply(rows, last_only=True)
        for _ in range(self.workload.new_tokens - 1):
            self._multiply(rows, last_only=False)
            self._multiply(rows, last_only=True)
        return time.perf_counter() - start

    def _multiply(self, rows: int, *, last_only: bool) -> None:
        inputs: dict[int, torch.Tensor] = {}
        for weight, last in self.products:
            if last != last_only:
                continue
            width = weight.shape[1]
            if width not in inputs:
                inputs[width] = torch.ones(rows, width, dtype=self.dtype)
            torch.nn.functional.linear(inputs[width], weight)


def _products(workload: Workload, dtype: torch.dtype) -> list[Product]:
    model = AutoModelForCausalLM.from_pretrained(workload.model, dtype=dtype)
    return [
        (module.weight.detach(), name == "lm_head")
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
