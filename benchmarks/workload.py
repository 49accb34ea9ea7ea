"""Workload W: many short requests over several adapters, decoded greedily to a fixed length.

Knows the prompts and makes the random adapters; knows nothing of who runs them. Request ``i`` uses adapter
``i mod N``; N = 0 means the bare base model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
B_SCALE = 0.3  # random B as PEFT draws it, made smaller so that the answers stay language


@dataclass(frozen=True)
class Workload:
    """``prompts`` are token ids; every request draws exactly ``new_tokens`` tokens."""

    model: Path
    prompts: list[list[int]]
    new_tokens: int
    adapters: list[Path]

    @property
    def tokens(self) -> int:
        return len(self.prompts) * self.new_tokens

    @property
    def prompt_tokens(self) -> int:
        return sum(len(prompt) for prompt in self.prompts)

    def adapter_of(self, request: int, active: int) -> int | None:
        """Index of the adapter that ``request`` uses when ``active`` are in play; None is the base model."""
        return request % active if active else None


def build(model: Path, scratch: Path, *, requests: int, new_tokens: int, adapters: int, rank: int) -> Workload:
    """Tokenize the prompts and write ``adapters`` random checkpoints under ``scratch``."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    prompts = [tokenizer(prompt_of(number))["input_ids"] for number in range(requests)]
    return Workload(model, prompts, new_tokens, write_adapters(model, scratch, adapters, rank))


def prompt_of(number: int) -> str:
    """The text of one request."""
    return (
        f"Question {number}: write a short note on topic number {7 * number} for the finance team and explain why it "
        "matters."
    )


def write_adapters(model: Path, scratch: Path, count: int, rank: int) -> list[Path]:
    """Random adapters on all seven linear layers, alpha = 2 × rank, one folder each."""
    if not count:
        return []
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=ALL_LINEAR, init_lora_weights=False)
    torch.manual_seed(0)
    wrapped = get_peft_model(base, config)
    folders = []
    for index in range(count):
        _draw(wrapped, seed=index)
        folder = scratch / f"adapter-{index:03d}"
        wrapped.save_pretrained(folder)
        folders.append(folder)
    return folders


def _draw(wrapped: torch.nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    for name, tensor in wrapped.named_parameters():
        if "lora_A" in name:
            torch.nn.init.kaiming_uniform_(tensor, a=5**0.5)
        elif "lora_B" in name:
            torch.nn.init.normal_(tensor, std=0.02)
            tensor.data.mul_(B_SCALE)
