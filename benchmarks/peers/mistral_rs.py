"""mistral.rs on the CPU with its dynamic LoRA: every request is a stream of its own, all of them open at once.

Its interface takes chat messages only, so the template passes the text on as it is.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.peers.older_config import with_rope_theta
from benchmarks.peers.serve import Task, main

SLOTS = 16
END_OF_TEXT = 2
BARE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


class MistralRs:
    def __init__(self, task: Task) -> None:
        from mistralrs import Architecture, LoraAdapter, ModelDType, Runner, Which

        self.task = task
        template = Path(task.scratch, "bare.jinja")
        template.write_text(BARE)
        adapters = [LoraAdapter(str(number), folder) for number, folder in enumerate(task.adapters[:SLOTS])]
        dtype = {"float32": ModelDType.F32, "bfloat16": ModelDType.BF16}[task.dtype]
        model = with_rope_theta(task.model, Path(task.scratch, "mistral-rs"))
        which = Which.Lora(
            model_id=str(model), arch=Architecture.Llama, dtype=dtype,
            max_adapters=SLOTS, adapters=adapters,
        )  # fmt: skip
        self._runner = Runner(
            which=which, max_seqs=len(task.prompts), token_source="none", prefix_cache_n=0, jinja_explicit=str(template)
        )
        self._threads = ThreadPoolExecutor(len(task.prompts))

    def run(self, active: int) -> float:
        start = time.perf_counter()
        streams = [self._ask(number, active) for number in range(len(self.task.prompts))]
        counts = list(self._threads.map(_count, streams))
        seconds = time.perf_counter() - start
        assert counts == [self.task.new_tokens] * len(streams), counts
        return seconds

    def _ask(self, number: int, active: int) -> Any:
        from mistralrs import ChatCompletionRequest

        adapter = self.task.adapter_of(number, active)
        request = ChatCompletionRequest(
            messages=self.task.texts[number], model="default", max_tokens=self.task.new_tokens, temperature=0.0,
            top_k=1, ignore_eos=True, logit_bias={END_OF_TEXT: -100.0}, stream=True,
            adapter=None if adapter is None else str(adapter),
        )  # fmt: skip
        return self._runner.send_chat_completion_request(request)


def _count(stream: Any) -> int:
    """Tokens that came, by its own account."""
    used = 0
    for chunk in stream:
        if getattr(chunk, "usage", None):
            used = chunk.usage.completion_tokens
    return used


if __name__ == "__main__":
    main(MistralRs)
