"""vLLM on the CPU, offline: one call of ``generate`` with a LoRARequest for each prompt.

One engine without LoRA for the base model, one with 16 LoRA slots, one with more where more are asked for.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.peers.serve import Task, main

SLOTS = 16


class VllmCpu:
    def __init__(self, task: Task) -> None:
        self.task = task
        self._engines: dict[int, Any] = {}

    def run(self, active: int) -> float:
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest

        task, engine = self.task, self._engine(max(SLOTS, active) if active else 0)
        chosen = [task.adapter_of(index, active) for index in range(len(task.prompts))]
        requests = [LoRARequest(str(at), at + 1, task.adapters[at]) for at in chosen if at is not None] or None
        params = SamplingParams(max_tokens=task.new_tokens, min_tokens=task.new_tokens, temperature=0, ignore_eos=True)
        prompts = [{"prompt_token_ids": prompt} for prompt in task.prompts]
        start = time.perf_counter()
        outputs = engine.generate(prompts, params, lora_request=requests, use_tqdm=False)
        seconds = time.perf_counter() - start
        assert all(len(output.outputs[0].token_ids) == task.new_tokens for output in outputs)
        return seconds

    def _engine(self, slots: int) -> Any:
        from vllm import LLM

        if slots not in self._engines:
            lora = {"enable_lora": True, "max_loras": slots, "max_cpu_loras": max(32, slots), "max_lora_rank": 32}
            self._engines[slots] = LLM(
                self.task.model, dtype=self.task.dtype, max_model_len=1024, max_num_seqs=len(self.task.prompts),
                enable_prefix_caching=False, **(lora if slots else {}),
            )  # fmt: skip
        return self._engines[slots]


if __name__ == "__main__":
    main(VllmCpu)
