"""PEFT's own mixed batch: ``generate(adapter_names=[…])``, left padding, one static batch."""

from __future__ import annotations

import time

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.peers.padding import padded
from benchmarks.workload import Workload


class PeftMixed:
    """The base model with as many adapters of ``workload`` as were asked for, loaded, unmerged."""

    def __init__(self, workload: Workload, dtype: torch.dtype) -> None:
        self.workload = workload
        self.pad = AutoTokenizer.from_pretrained(workload.model).pad_token_id or 0
        base = AutoModelForCausalLM.from_pretrained(workload.model, dtype=dtype)
        self.model = PeftModel.from_pretrained(base, str(workload.adapters[0]), adapter_name="0")
        self._loaded = 1
        self._warm: set[int] = set()

    @torch.inference_mode()
    def run(self, active: int) -> tuple[float, list[list[int]]]:
        """Seconds for one whole run over ``active`` adapters, and each request's new tokens; two tokens warm it up."""
        if active not in self._warm:
            self._warm.add(active)
            self._generate(active, 2)
        return self._generate(active, self.workload.new_tokens)

    def _generate(self, active: int, count: int) -> tuple[float, list[list[int]]]:
        for index in range(self._loaded, active):
            self.model.load_adapter(str(self.workload.adapters[index]), adapter_name=str(index))
        self._loaded = max(self._loaded, active)
        self.model.eval()
        ids, mask = padded(self.workload.prompts, self.pad)
        chosen = [self.workload.adapter_of(i, active) for i in range(len(self.workload.prompts))]
        names = ["__base__" if index is None else str(index) for index in chosen]
        start = time.perf_counter()
        out = self.model.generate(
            input_ids=ids, attention_mask=mask, adapter_names=names, do_sample=False,
            max_new_tokens=count, min_new_tokens=count, pad_token_id=self.pad,
        )  # fmt: skip
        return time.perf_counter() - start, out[:, ids.shape[1] :].tolist()
