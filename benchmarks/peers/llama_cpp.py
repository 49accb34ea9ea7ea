"""llama.cpp through the C interface of llama-cpp-python, built from source for this machine.

All requests are sequences of one batch. Adapters belong to a context, not to a sequence, so their requests run one
adapter after another.
"""

from __future__ import annotations

import ctypes
import json
import os
import time
from pathlib import Path
from typing import Any

from benchmarks.peers.gguf_files import adapter, dequantized
from benchmarks.peers.serve import Task, main

SLOTS = 16
CONTEXT = 16_384  # tokens of KV cache, all sequences together
BATCH_TOKENS = 2048
END_OF_TEXT = 2


class LlamaCpp:
    def __init__(self, task: Task) -> None:
        import llama_cpp

        self.task = task
        llama_cpp.llama_backend_init()
        scratch = Path(task.scratch)
        path = dequantized(Path(task.gguf), scratch / "base.gguf", task.dtype)
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        self._context = llama_cpp.llama_init_from_model(self._model, self._params(llama_cpp))
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)
        config = json.loads((Path(task.model) / "config.json").read_text())
        heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
        self._adapters = [
            llama_cpp.llama_adapter_lora_init(
                self._model, str(adapter(Path(folder), scratch / f"{number}.gguf", heads)).encode()
            )
            for number, folder in enumerate(task.adapters[:SLOTS])
        ]

    def run(self, active: int) -> float:
        start = time.perf_counter()
        for number in range(active) if active else [None]:
            self._use(number)
            self._generate(self.task.prompts if number is None else self.task.prompts[number::active])
        return time.perf_counter() - start

    def _use(self, number: int | None) -> None:
        import llama_cpp

        if number is None:
            assert llama_cpp.llama_set_adapters_lora(self._context, None, 0, None) == 0
            return
        adapters = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(self._adapters[number])
        assert llama_cpp.llama_set_adapters_lora(self._context, adapters, 1, (ctypes.c_float * 1)(1.0)) == 0

    def _generate(self, prompts: list[list[int]]) -> None:
        import llama_cpp

        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)  # noqa: FBT003  a C function
        tokens = [
            (row, token, place, place == len(prompt) - 1)
            for row, prompt in enumerate(prompts)
            for place, token in enumerate(prompt)
        ]
        drawn = self._decode(tokens)
        for step in range(1, self.task.new_tokens):
            drawn = self._decode([(row, token, len(prompts[row]) + step - 1, True) for row, token in enumerate(drawn)])

    def _decode(self, tokens: list[tuple[int, int, int, bool]]) -> list[int]:
        """One batch of (sequence, token, position, whether it draws); the greedy tokens of those that draw."""
        import llama_cpp
        import numpy as np

        batch, wanted = self._batch, 0
        batch.n_tokens = len(tokens)
        for place, (row, token, position, wants) in enumerate(tokens):
            batch.token[place], batch.pos[place] = token, position
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, row
            batch.logits[place] = wants
            wanted += wants
        assert llama_cpp.llama_decode(self._context, batch) == 0
        pointer = llama_cpp.llama_get_logits(self._context)
        logits = np.ctypeslib.as_array(pointer, shape=(wanted, self._vocabulary))
        logits[:, END_OF_TEXT] = -np.inf
        drawn: list[int] = logits.argmax(axis=1).tolist()
        return drawn

    def _params(self, llama_cpp: Any) -> Any:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.kv_unified = CONTEXT, len(self.task.prompts), False
        params.n_batch, params.n_ubatch = BATCH_TOKENS, 512
        params.n_threads = params.n_threads_batch = len(os.sched_getaffinity(0))
        return params


if __name__ == "__main__":
    main(LlamaCpp)
