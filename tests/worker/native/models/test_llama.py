"""The flat forward: the logits of Hugging Face's modules, for whom it may be used, what happens if it is wrong."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import AutoModelForCausalLM

from lorapool.shared.job import BASE_REF
from lorapool.worker.engine.sequence import Batch, Sequence, Work
from lorapool.worker.native.load import checked_runner
from lorapool.worker.native.models import llama
from lorapool.worker.native.models.hugging_face import HuggingFaceForward
from lorapool.worker.native.models.llama import LlamaForward
from lorapool.worker.native.models.llama_family import unknown
from lorapool.worker.native.runner import ModelRunner
from tests.worker.tiny import SIZES, VOCABULARY, Module, Weights, runner_over, sequence, tiny_llama

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
WINDOWS = {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2}
FAMILY: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "llama, every bias": ("LlamaConfig", {"attention_bias": True, "mlp_bias": True}),
    "llama, heads of 16": ("LlamaConfig", {"head_dim": 16, "tie_word_embeddings": True}),
    "llama 3 angles": ("LlamaConfig", {"rope_parameters": LLAMA3}),
    "yarn angles": ("LlamaConfig", {"rope_parameters": YARN}),
    "qwen2": ("Qwen2Config", WINDOWS),
    "qwen3": ("Qwen3Config", {"head_dim": 16}),
    "mistral": ("MistralConfig", {"sliding_window": 6}),
    "smollm3": ("SmolLM3Config", {"no_rope_layer_interval": 2}),
}


def _model(name: str, dtype: torch.dtype = torch.float32) -> Any:
    config, changes = FAMILY[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(getattr(transformers, config)(**{**SIZES, **changes})).to(dtype).eval()
    for path, parameter in model.named_parameters():
        if path.endswith("bias") or "norm" in path:
            parameter.data.add_(torch.randn_like(parameter) * 0.2)
    return model


def _everywhere(model: Any, seed: int) -> Weights:
    """LoRA on every linear module, head and embedding, with gains and offsets."""
    torch.manual_seed(seed)
    made = Weights(digest=str(seed))
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
            out, width = module.weight.shape if isinstance(module, torch.nn.Linear) else module.weight.shape[::-1]
            shift = torch.randn(out) * 0.1 if isinstance(module, torch.nn.Linear) else None
            factors = torch.randn(3, width) / width**0.5, torch.randn(out, 3) * 0.3
            made.modules[path] = Module(*factors, gain=1 + torch.randn(out) * 0.1, offset=shift)
    return made


def _logits(runner: ModelRunner) -> Tensor:
    """Prompts in chunks and decode steps of five rows over two adapters and the base: all their logits."""
    rows: list[Sequence] = []
    for index, length in enumerate((1, 9, 14, 3, 30)):
        row = sequence(str(index), [(7 * index + 3 * place) % VOCABULARY for place in range(length)], BASE_REF)
        row.slot = index % 3
        assert runner.reserve(row.seq_id, row.length)
        rows.append(row)
    seen = []
    while works := [Work(row, row.computed, min(5, row.length - row.computed)) for row in rows if _left(row)]:
        works = [Work(work.sequence, work.start, 1 if work.start == 10 else work.count) for work in works]
        batch = Batch.of(works)
        seen.append(runner.all_logits(batch))
        for work in batch.works:
            work.sequence.computed += work.count
    return torch.cat(seen)


def _left(row: Sequence) -> bool:
    return row.computed < row.length


@pytest.mark.parametrize("name", FAMILY)
def test_it_gives_what_hugging_faces_modules_give(name: str) -> None:
    """With adapters on all that can be adapted, gains and offsets included, to 1e-5 of the logits' size."""
    model = _model(name)
    runners = [runner_over(deepcopy(model), flat=flat) for flat in (True, False)]
    assert isinstance(runners[0]._forward, LlamaForward), runners[0].not_flat
    assert isinstance(runners[1]._forward, HuggingFaceForward)
    for runner in runners:
        for slot in (1, 2):
            runner.lora.write(slot, _everywhere(model, slot))
    flat, own = map(_logits, runners)
    assert float((flat - own).abs().max()) <= 1e-5 * float(own.abs().max())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    """float64 to its own precision, without kernels; bfloat16 as near to float32 as Hugging Face's modules are."""
    exact = _logits(runner_over(_model("qwen3", torch.float64)))
    runners = [runner_over(_model("qwen3", dtype), flat=flat) for flat in (True, False)]
    flat, own = (float((_logits(runner).double() - exact).abs().mean()) for runner in runners)
    assert flat <= max(1.2 * own, 1e-10)


def test_no_step_stays_behind() -> None:
    """The model's own forward gives the same before and after a step with adapters."""
    model = _model("llama")
    for flat in (True, False):
        runner = runner_over(deepcopy(model), flat=flat)
        runner.lora.write(1, _everywhere(model, 1))
        ids = [3, 1, 4]
        before = runner.reference_logits(ids)
        _logits(runner)
        assert torch.equal(before, runner.reference_logits(ids))


def _field(model: Any) -> None:
    model.config.residual_multiplier = 2.0


def _activation(model: Any) -> None:
    model.config.hidden_act = "gelu"


def _angles(model: Any) -> None:
    model.config.rope_parameters = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}


def _module(model: Any) -> None:
    model.model.layers[0].mlp.extra = torch.nn.Linear(2, 2)


def _linear(model: Any) -> None:
    class Odd(torch.nn.Linear): ...

    model.model.layers[1].self_attn.k_proj = Odd(32, 16, bias=False)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_field, "config field residual_multiplier: 2.0"),
        (_activation, "config field hidden_act: 'gelu'"),
        (_angles, "rope field partial_rotary_factor"),
        (_module, "modules of LlamaDecoderLayer"),
        (_linear, "k_proj of class Odd"),
    ],
)
def test_what_it_does_not_know_is_left_to_hugging_face(change: Any, reason: str) -> None:
    """Unknown fields of the config, activations, angles and modules are named."""
    model = tiny_llama()
    assert unknown(model) is None
    change(model)
    assert reason == unknown(model)


def test_other_architectures_are_left_to_hugging_face() -> None:
    """By the class, also where the config looks the same."""
    model = AutoModelForCausalLM.from_config(transformers.Olmo2Config(**SIZES))
    assert "class Olmo2ForCausalLM" == unknown(model)


def test_a_flat_forward_that_is_wrong_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The self-check sees it, and Hugging Face's modules serve."""
    right = llama.gated
    monkeypatch.setattr(llama, "gated", lambda gate_up: right(gate_up) * 1.01)
    model = tiny_llama()
    settings = {"slots": 1, "max_rank": 4, "max_model_len": 64, "kv_cache_bytes": 1 << 22}
    runner_over(model)
    assert isinstance(checked_runner(model, **settings)._forward, HuggingFaceForward)
    monkeypatch.undo()
    assert isinstance(checked_runner(tiny_ready(), **settings)._forward, LlamaForward)


def tiny_ready() -> Any:
    model = tiny_llama()
    runner_over(model)
    return model
