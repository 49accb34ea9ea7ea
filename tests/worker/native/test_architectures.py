"""Decoder-only architectures that run through the same code: small random ones, against transformers' own forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from lorapool.worker.engine.adapter_cache import AdapterCache
from lorapool.worker.engine.continuous_batch import ContinuousBatch
from lorapool.worker.engine.scheduler import Scheduler
from lorapool.worker.native import self_check
from tests.fake_runner import FakeStore
from tests.worker.tiny import SIZES, VOCABULARY, Now, drain, runner_over, sequence, tokens

GPT2: dict[str, Any] = {"vocab_size": VOCABULARY, "n_positions": 256, "n_embd": 32, "n_layer": 3, "n_head": 4}
NO_TOKENS = {"bos_token_id": None, "eos_token_id": None}
CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen2Config": SIZES,
    "Qwen3Config": SIZES,
    "MistralConfig": {**SIZES, "sliding_window": 6},
    "Gemma2Config": {**SIZES, "sliding_window": 6, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 4.0},
    "Gemma3TextConfig": {**SIZES, "sliding_window": 6},
    "Phi3Config": SIZES,
    "GPT2Config": {**GPT2, **NO_TOKENS, "initializer_range": 0.3},
    "Olmo2Config": SIZES,
    "GraniteConfig": SIZES,
    "CohereConfig": SIZES,
}


@pytest.mark.parametrize("name", CONFIGS)
def test_an_architecture_gives_its_own_greedy_tokens(name: str) -> None:
    """Ragged prompts in chunks, decoding past three windows: the tokens of transformers' forward without a cache."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(getattr(transformers, name)(**CONFIGS[name])).eval()
    prompts = [[(7 * row + 3 * place) % 97 + 1 for place in range(1 + 6 * row)] for row in range(4)]
    expected = [_greedy(model, prompt, 20) for prompt in prompts]
    runner = runner_over(model, max_model_len=200)
    self_check.check(runner)
    adapters = AdapterCache(FakeStore(), lambda _: FakeStore(), 1, Now())  # type: ignore[arg-type,return-value]
    engine = ContinuousBatch(runner, adapters, Scheduler(prefill_tokens=9))
    for index, prompt in enumerate(prompts):
        engine.add(sequence(str(index), prompt, max_new_tokens=20))
    seen = drain(engine)
    assert expected == [tokens(seen[str(index)]) for index in range(len(prompts))]


@torch.inference_mode()
def _greedy(model: Any, prompt: list[int], count: int) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]
