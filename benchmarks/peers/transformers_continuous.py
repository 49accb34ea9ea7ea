"""transformers' continuous batching (``generate_batch``) on the base model."""

from __future__ import annotations

import time

import torch
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from benchmarks.peers.serve import Task, main


class Continuous:
    def __init__(self, task: Task) -> None:
        self.task = task
        self.model = AutoModelForCausalLM.from_pretrained(
            task.model, dtype=getattr(torch, task.dtype), attn_implementation="sdpa"
        ).eval()

    @torch.inference_mode()
    def run(self, active: int) -> float:
        assert active == 0, "the base model only"
        count = self.task.new_tokens
        config = GenerationConfig(max_new_tokens=count, do_sample=False, eos_token_id=-1, pad_token_id=0)
        batching = ContinuousBatchingConfig(page_size=32, num_blocks=1024, max_batch_tokens=512)
        start = time.perf_counter()
        outputs = self.model.generate_batch(
            self.task.prompts, generation_config=config, continuous_batching_config=batching
        )
        seconds = time.perf_counter() - start
        assert [count] * len(outputs) == [len(output.generated_tokens) for output in outputs.values()]
        return seconds


if __name__ == "__main__":
    main(Continuous)
