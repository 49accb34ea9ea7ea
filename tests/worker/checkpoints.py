"""Adapters for tests: made by PEFT itself on a tiny random model, with weights that matter, and saved as it saves."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}


def tiny_llama(**changes: Any) -> nn.Module:
    """Two layers with attention biases, float64, weights from a fixed seed."""
    torch.manual_seed(0)
    config = LlamaConfig(
        **{**SIZES, "num_attention_heads": 4, "num_key_value_heads": 2, "attention_bias": True, **changes}
    )
    model = LlamaForCausalLM(config).double().eval()
    return _with_random_biases(model)


def tiny_gpt2() -> nn.Module:
    """Two layers of Conv1D modules, float64."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    return _with_random_biases(GPT2LMHeadModel(config).double().eval())


def tiny_gemma3() -> nn.Module:
    """Two layers; the embedding multiplies its rows by the root of its width."""
    torch.manual_seed(0)
    sizes = {**SIZES, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 6}
    config = Gemma3TextConfig(**sizes, pad_token_id=None, bos_token_id=None, eos_token_id=None)
    return Gemma3ForCausalLM(config).double().eval()


def _with_random_biases(model: nn.Module) -> nn.Module:
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.5)
    return model


def save_adapter(folder: Path, model: nn.Module, seed: int = 1, **config: Any) -> PeftModel:
    """Wrap a copy of ``model``, give every adapter tensor random values, save it; return the wrapped copy."""
    wrapped = get_peft_model(deepcopy(model), LoraConfig(**{"r": 4, "target_modules": ["q_proj", "v_proj"], **config}))
    wrapped = wrapped.double().eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in wrapped.named_parameters():
        if "lora_magnitude" in name:
            parameter.data *= 1 + 0.3 * torch.rand(parameter.shape, generator=generator, dtype=parameter.dtype)
        elif "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.3
    wrapped.save_pretrained(str(folder))
    return wrapped


def edit_config(folder: Path, **changes: Any) -> None:
    """Change fields of a saved adapter_config.json."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_tensors(folder: Path, changes: dict[str, Tensor | None]) -> None:
    """Replace, add, or (None) remove tensors of a saved adapter."""
    path = folder / "adapter_model.safetensors"
    tensors = {name: tensor for name, tensor in {**load_file(path), **changes}.items() if tensor is not None}
    save_file(tensors, path)
