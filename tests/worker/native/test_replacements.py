"""Norms and gates that replace a model's own: only where they give the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, Olmo2Config

from lorapool.worker.native.replacements import replacements

SIZES: dict[str, Any] = {
    "hidden_size": 40, "intermediate_size": 88, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 20, "vocab_size": 100,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip


def _model(config: type, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = AutoModelForCausalLM.from_config(config(**SIZES)).to(dtype).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model


def _norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if "RMSNorm" in type(module).__name__]


def _mlps(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if type(module).__name__.endswith("MLP")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [LlamaConfig, Olmo2Config])
@torch.inference_mode()
def test_norms_and_gates_are_the_models_own(config: type, dtype: torch.dtype) -> None:
    """Every norm and every MLP is replaced, and gives what it gave, at widths that are no whole vectors too."""
    model = _model(config, dtype)
    replaced = replacements(model)
    assert {*_norms(model), *_mlps(model)} == set(replaced)
    for module, forward in replaced.items():
        width = module.weight.shape[0] if hasattr(module, "weight") else 40
        x = torch.randn(2, 3, 2 * width).to(dtype)[..., :width]  # a part of something wider
        torch.testing.assert_close(module(x), forward(x), rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)


@torch.inference_mode()
def test_rows_as_they_may_come() -> None:
    """Columns of something transposed, and rows of another dtype, are normed as the model does it."""
    model = _model(LlamaConfig, torch.bfloat16)
    replaced, norms = replacements(model), _norms(model)
    assert len(norms) == 3
    for norm in norms:
        for x in (torch.randn(40, 3).to(torch.bfloat16).t(), torch.randn(3, 40)):
            torch.testing.assert_close(norm(x), replaced[norm](x), rtol=2e-2, atol=1e-5)


def test_others_keep_their_own_code() -> None:
    """Gemma's norm adds one to its weight and its gate is no SiLU; float64 and half precision have no kernels."""
    assert not replacements(_model(Gemma2Config, torch.float32))
    assert not replacements(_model(LlamaConfig, torch.float64))


class Renamed(nn.Module):
    """A norm in all but its name, or, with ``centred``, something else of the same parts."""

    def __init__(self, *, centred: bool) -> None:
        super().__init__()
        self.weight, self.tiny, self.centred = nn.Parameter(torch.randn(24)), 1e-5, centred

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(-1, keepdim=True) if self.centred else x
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.tiny)


@pytest.mark.parametrize("centred", [False, True])
def test_a_norm_is_known_by_what_it_computes(*, centred: bool) -> None:
    """Whatever its class and its epsilon are called; one that computes something else keeps its own code."""
    assert len(replacements(Renamed(centred=centred))) == (0 if centred else 1)


@torch.inference_mode()
def test_extremes_of_the_gate() -> None:
    """Far to both sides, infinity and not a number, as torch has it."""

    class Mlp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_proj = self.up_proj = self.down_proj = nn.Linear(6, 6, bias=False)
            nn.init.eye_(self.down_proj.weight)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.silu(x) * x

    mlp = Mlp()
    x = torch.tensor([[-1e30, -90.0, 0.0, 90.0, 1e18, float("nan")]])
    [forward] = replacements(mlp).values()
    mlp.gate_proj = mlp.up_proj = mlp.down_proj = nn.Identity()  # type: ignore[assignment]
    torch.testing.assert_close(mlp(x), forward(x), equal_nan=True, rtol=1e-5, atol=1e-30)
