"""OpenVINO GenAI's continuous batching on the CPU, after an export of the base model by optimum-intel.

It cannot mix adapters in a batch (asked to, it gives all rows one of them), so the adapters' requests run one adapter
after another. It does not read an adapter's alpha either: the factor, alpha by rank, is given by hand.
"""

from __future__ import annotations

import time
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.peers.older_config import with_rope_theta
from benchmarks.peers.serve import Task, main

SLOTS = 16
END_OF_TEXT = 2
ALPHA_BY_RANK = 2.0  # of the workload's adapters
CACHE_GIB = 2
BATCH_TOKENS = 512
PRECISION = {"float32": "f32", "bfloat16": "bf16"}


class OpenVino:
    def __init__(self, task: Task) -> None:
        import numpy as np
        import openvino

        self.task = task
        self._folder = _export(task)
        self._prompts = [openvino.Tensor(np.array([prompt], dtype=np.int64)) for prompt in task.prompts]

    def run(self, active: int) -> float:
        pipeline = self._with_adapters if active else self._base
        start = time.perf_counter()
        for adapter in range(active) if active else [None]:
            prompts = self._prompts if adapter is None else self._prompts[adapter::active]
            results = pipeline.generate(prompts, [self._generation(adapter)] * len(prompts))
            assert all(len(result.m_generation_ids[0]) == self.task.new_tokens for result in results)
        return time.perf_counter() - start

    @cached_property
    def _base(self) -> Any:
        return self._pipeline({})

    @cached_property
    def _adapters(self) -> list[Any]:
        from openvino_genai import Adapter

        return [Adapter(f"{folder}/adapter_model.safetensors") for folder in self.task.adapters[:SLOTS]]

    @cached_property
    def _with_adapters(self) -> Any:
        from openvino_genai import AdapterConfig

        return self._pipeline({"adapters": AdapterConfig([(adapter, ALPHA_BY_RANK) for adapter in self._adapters])})

    def _pipeline(self, more: dict[str, Any]) -> Any:
        from openvino_genai import ContinuousBatchingPipeline, SchedulerConfig

        scheduler = SchedulerConfig()
        scheduler.cache_size, scheduler.max_num_seqs = CACHE_GIB, len(self._prompts)
        scheduler.max_num_batched_tokens, scheduler.dynamic_split_fuse = BATCH_TOKENS, True
        scheduler.enable_prefix_caching = False
        precision = {"INFERENCE_PRECISION_HINT": PRECISION[self.task.dtype]}
        return ContinuousBatchingPipeline(str(self._folder), scheduler, "CPU", {**precision, **more})

    def _generation(self, adapter: int | None) -> Any:
        from openvino_genai import AdapterConfig, GenerationConfig

        config, count = GenerationConfig(), self.task.new_tokens
        config.max_new_tokens = config.min_new_tokens = count
        config.do_sample, config.eos_token_id, config.stop_token_ids = False, END_OF_TEXT, {END_OF_TEXT}
        if adapter is not None:
            config.adapters = AdapterConfig(self._adapters[adapter], ALPHA_BY_RANK)
        return config


def _export(task: Task) -> Path:
    """The base model as OpenVINO's intermediate representation in float32, in a folder of its own."""
    from optimum.exporters.openvino import main_export

    out = Path(task.scratch, "openvino")
    source = with_rope_theta(task.model, Path(task.scratch, "openvino-source"))
    main_export(str(source), output=out, task="text-generation-with-past", library_name="transformers", stateful=True)
    return out


if __name__ == "__main__":
    main(OpenVino)
