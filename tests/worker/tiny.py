"""A two-layer random Llama, adapters for it, and what drives an engine over it in tests."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Rows
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lorapool.shared.job import BASE_REF
from lorapool.worker.engine.continuous_batch import ContinuousBatch
from lorapool.worker.engine.port import Sampling, Update
from lorapool.worker.engine.sequence import Sequence
from lorapool.worker.native import attention
from lorapool.worker.native.runner import ModelRunner

VOCABULARY = 101
# Of a config of any decoder, small.
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}


def tiny_llama(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """Weights large enough that different rows give different tokens."""
    torch.manual_seed(seed)
    fields: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.4,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    return LlamaForCausalLM(LlamaConfig(**{**fields, **changes})).eval()


def runner_over(model: torch.nn.Module, **changes: Any) -> ModelRunner:
    """A runner that shares the model's weights and puts its own attention in."""
    attention.register()
    model.set_attn_implementation(attention.NAME)  # type: ignore[operator]
    settings: dict[str, Any] = {
        "slots": 4,
        "max_rank": 16,
        "max_model_len": 256,
        "kv_cache_bytes": 1 << 24,
    }
    return ModelRunner(model, **{**settings, **changes})


def sequence(seq_id: str, prompt: list[int], ref: str = BASE_REF, seed: int = 0, **params: Any) -> Sequence:
    return Sequence(seq_id, ref, prompt, Sampling(**({"max_new_tokens": 128, "seed": seed} | params)))


def drain(engine: ContinuousBatch, limit: int = 5000) -> dict[str, list[Update]]:
    """Step until nothing is left; updates by sequence. Checks integrity at the end."""
    seen: dict[str, list[Update]] = {}
    while engine.has_work:
        for update in engine.step():
            seen.setdefault(update.seq_id, []).append(update)
        limit -= 1
        assert limit > 0, "the engine makes no progress"
    engine.check_integrity()
    return seen


def tokens(updates: Iterable[Update]) -> list[int]:
    return [token for update in updates for token in update.token_ids]


class Now(Executor):
    """An executor that runs what it is given at once."""

    def submit(self, work: Any, /, *args: Any, **_: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args))
        except Exception as error:  # noqa: BLE001  as any executor does
            future.set_exception(error)
        return future

    def shutdown(self, *_: Any, **__: Any) -> None:
        pass


@dataclass
class Module:
    """One module's LoRA weights."""

    A: torch.Tensor
    B: torch.Tensor
    gain: torch.Tensor | None = None
    offset: torch.Tensor | None = None


@dataclass
class Weights:
    modules: dict[str, Module] = field(default_factory=dict)
    digest: str = ""


def random_weights(model: torch.nn.Module, rank: int, seed: int, names: Rows[str]) -> Weights:
    """An adapter on every module whose path ends in one of ``names``."""
    generator = torch.Generator().manual_seed(seed)
    found = Weights(digest=str(seed))
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and path.rpartition(".")[2] in names:
            down = torch.randn(rank, module.in_features, generator=generator) / module.in_features**0.5
            up = torch.randn(module.out_features, rank, generator=generator) * 0.3
            found.modules[path] = Module(down, up)
    return found


def peft_adapter(folder: Path, base: Path, seed: int, **config: Any) -> Path:
    """Save a random PEFT adapter of the base checkpoint in ``folder``."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    model = get_peft_model(
        LlamaForCausalLM.from_pretrained(base),
        LoraConfig(init_lora_weights=False, base_model_name_or_path=str(base), **config),
    )
    model.save_pretrained(folder)
    return folder
