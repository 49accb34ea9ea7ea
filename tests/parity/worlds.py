"""Small random models of many architectures, random adapters for them made by PEFT, and PEFT itself as the oracle.

The oracle is PEFT's unmerged forward in float64, without any cache, one row at a time. Nothing here knows how lorapool
computes; only a model's module names are read.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

VOCABULARY = 61
WINDOW = 6
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
GPT2: dict[str, Any] = {"vocab_size": VOCABULARY, "n_positions": 128, "n_embd": 24, "n_layer": 2, "n_head": 4}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "LlamaConfig": {**SIZES, "tie_word_embeddings": True},
    "Qwen2Config": SIZES,
    "Qwen3Config": SIZES,
    "MistralConfig": {**SIZES, "sliding_window": WINDOW},
    "Gemma2Config": {
        **SIZES,
        "sliding_window": WINDOW,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 4.0,
        "query_pre_attn_scalar": 6,
    },
    "Gemma3TextConfig": {
        **SIZES,
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention"],
        "query_pre_attn_scalar": 6,
    },
    "Phi3Config": SIZES,
    "GPT2Config": {**GPT2, "bos_token_id": None, "eos_token_id": None, "initializer_range": 0.3},
    "Olmo2Config": SIZES,
    "GraniteConfig": SIZES,
    "CohereConfig": SIZES,
}


@cache
def base_model(name: str, seed: int) -> nn.Module:
    """The architecture's model in float32, with weights large enough that rows and adapters differ."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(getattr(transformers, name)(**ARCHITECTURES[name])).eval()
    for key, parameter in model.named_parameters():
        if key.endswith("bias"):
            nn.init.normal_(parameter, std=0.3)
    return model  # type: ignore[no-any-return]


@cache
def adaptable(name: str) -> tuple[str, ...]:
    """Last parts of the names of all modules that PEFT can adapt."""
    kinds = (nn.Linear, Conv1D, nn.Embedding)
    paths = [path for path, module in base_model(name, 0).named_modules() if isinstance(module, kinds)]
    return tuple(sorted({path.rpartition(".")[2] for path in paths}))


def embeddings(name: str) -> frozenset[str]:
    """Those among them that are embeddings: LoRA bias does not exist for them."""
    model = base_model(name, 0)
    return frozenset(p.rpartition(".")[2] for p, module in model.named_modules() if isinstance(module, nn.Embedding))


@dataclass(frozen=True)
class Recipe:
    """One adapter: what LoraConfig is given, and the seed of its weights."""

    config: dict[str, Any]
    seed: int


@contextmanager
def quietly() -> Iterator[None]:
    """PEFT warns of tied weights, of transposed ones, of biases, of saved embeddings: all of it is meant here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def make_adapter(folder: Path, model: nn.Module, recipe: Recipe) -> nn.Module:
    """Have PEFT wrap a float64 copy of ``model``, with random weights, and save it; return the wrapped copy."""
    torch.manual_seed(recipe.seed)
    with quietly():
        wrapped = get_peft_model(deepcopy(model).double(), LoraConfig(**recipe.config)).double().eval()
        generator = torch.Generator().manual_seed(recipe.seed)
        for key, parameter in wrapped.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator).double()
            if "lora_magnitude" in key:
                parameter.data *= 1 + 0.2 * noise.clamp(-2, 2)
            elif "lora_" in key and key.endswith("bias"):
                parameter.data = 0.2 * noise
            elif "lora_" in key:  # A: [rank, in], B: [out, rank]; B·A·x is about as large as x whatever the rank
                parameter.data = noise * (0.7 if "_A" in key else 1.0) / parameter.shape[1] ** 0.5
        wrapped.save_pretrained(str(folder))
    return wrapped


@torch.inference_mode()
def oracle_logits(model: nn.Module, prompt: Sequence[int], output: Sequence[int]) -> Tensor:
    """[len(output), vocab] in float64: what each token of the output was to be chosen by."""
    ids = torch.tensor([[*prompt, *output]])
    found: Tensor = model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    return found


def plain(name: str, seed: int, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The base model in float64, its weights rounded to ``dtype`` first: that is what a worker is given."""
    return deepcopy(base_model(name, seed)).to(dtype).double()


def random_prompt(chance: random.Random, longest: int) -> list[int]:
    return [chance.randrange(VOCABULARY) for _ in range(chance.randint(1, longest))]
