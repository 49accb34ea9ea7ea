"""The limit: only the base model's matrix products of the whole run, prefill included.

Same dtype, threads and token counts as the workload, and the very kernels of our engine (packed weights, one product
for modules that share an input); no attention, no normalisation, no sampling and no LoRA.
"""

from __future__ import annotations

import time

import torch
from transformers import AutoModelForCausalLM

from benchmarks.workload import Workload
from lorapool.worker.native.linear import Product
from lorapool.worker.native.models.fused_inputs import products

SHARED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class Limit:
    """Runs the products of ``workload`` with all its requests in a decode step."""

    def __init__(self, workload: Workload, dtype: torch.dtype, prefill_rows: int = 512) -> None:
        self.workload = workload
        self.dtype = dtype
        self.prefill_rows = prefill_rows
        self.body, self.head = _products(workload, dtype)

    @torch.inference_mode()
    def run(self) -> float:
        """Seconds for one whole run."""
        start = time.perf_counter()
        left = self.workload.prompt_tokens
        while left > 0:
            self._multiply(self.body, min(left, self.prefill_rows))
            left -= self.prefill_rows
        rows = len(self.workload.prompts)
        self._multiply(self.head, rows)
        for _ in range(self.workload.new_tokens - 1):
            self._multiply(self.body, rows)
            self._multiply(self.head, rows)
        return time.perf_counter() - start

    def _multiply(self, wanted: list[tuple[int, Product]], rows: int) -> None:
        inputs: dict[int, torch.Tensor] = {}
        for width, product in wanted:
            if width not in inputs:
                inputs[width] = torch.ones(1, rows, width, dtype=self.dtype)
            product(inputs[width])


def _products(workload: Workload, dtype: torch.dtype) -> tuple[list[tuple[int, Product]], list[tuple[int, Product]]]:
    """(in_features, product) of each linear module: those of every token, and lm_head's."""
    model = AutoModelForCausalLM.from_pretrained(workload.model, dtype=dtype)
    modules = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    parents = {name.rpartition(".")[0]: None for name in modules}
    groups = [[f"{parent}.{name}" for name in names] for parent in parents for names in SHARED]
    by_name = products(modules, [group for group in groups if all(name in modules for name in group)])
    widths = {name: module.in_features for name, module in modules.items()}
    body = [(widths[name], product) for name, product in by_name.items() if name != "lm_head"]
    return body, [(widths["lm_head"], by_name["lm_head"])]
