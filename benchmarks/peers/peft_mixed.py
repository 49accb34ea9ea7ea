"""PEFT's own mixed batch: ``generate(adapter_names=[…])``, left padding, one static batch."""

from __future__ import annotations

import time

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.workload import Workload


class PeftMixed:
    """The base model with every adapter of ``workload`` loaded, unmerged."""

    def __init__(self, workload: Workload, dtype: torch.dtype) -> None:
        self.workload = workload
        tokenizer = AutoTokenizer.from_pretrained(workload.model)
        self.pad = tokenizer.pad_token_id or 0
        base = AutoModelForCausalLM.from_pretrained(workload.model, dtype=dtype)
        self.model = PeftModel.from_pretrained(base, str(workload.adapters[0]), adapter_name="0")
        for index, folder in enumerate(workload.adapters[1:], 1):
            self.model.load_adapter(str(folder), adapter_name=str(index))
        self.model.eval()

    @torch.inference_mode()
    def run(self, active: int) -> tuple[float, list[list[int]]]:
        """Seconds for one whole run over ``active`` adapters, and each request's new tokens."""
        ids, mask = self._padded()
        chosen = [self.workload.adapter_of(i, active) for i in range(len(self.workload.prompts))]
        names = ["__base__" if index is None else str(index) for index in chosen]
        count = self.workload.new_tokens
        start = time.perf_counter()
        out = self.model.generate(
            input_ids=ids, attention_mask=mask, adapter_names=names, do_sample=False,
            max_new_tokens=count, min_new_tokens=count, pad_token_id=self.pad,
        )  # fmt: skip
        return time.perf_counter() - start, out[:, ids.shape[1] :].tolist()

    def _padded(self) -> tuple[torch.Tensor, torch.Tensor]:
        width = max(map(len, self.workload.prompts))
        ids = torch.full((len(self.workload.prompts), width), self.pad)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(self.workload.prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        return ids, mask
