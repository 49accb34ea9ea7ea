"""Which of a model's modules our elementwise kernels may replace: norms, and MLPs with a gate of SiLU.

A module is known by what it holds and what it computes, never by its class: one that may be a norm or a gate is
replaced only if its own forward gives the same on random numbers, to the rounding of its dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lorapool.worker.kernels import elementwise as elementwise_kernel

_EQUAL = {torch.float32: 2e-6, torch.bfloat16: 2.0**-7}  # one rounding, relative to the row's largest

Forward = Callable[[Tensor], Tensor]


def replacements(model: nn.Module) -> dict[nn.Module, Forward]:
    """Faster forwards of the model's modules, by module; each was compared with the module's own."""
    first = next(model.parameters())
    if not elementwise_kernel.serves(first.dtype, first.device):
        return {}
    same: dict[nn.Module, Forward] = {}
    for module in model.modules():
        candidate = _norm_of(module, first.dtype) or _gate_of(module)
        if candidate is not None and _same(module, *candidate):
            same[module] = candidate[1]
    return same


def _norm_of(module: Any, dtype: torch.dtype) -> tuple[int, Forward] | None:
    """The width of input and the forward of what may be a norm: it holds one weight, a vector, and one float."""
    parameters = dict(module.named_parameters())
    numbers = [value for value in vars(module).values() if isinstance(value, float)]
    if list(parameters) != ["weight"] or module.weight.dim() != 1 or len(numbers) != 1:
        return None
    if module.weight.dtype != dtype:
        return None
    return len(module.weight), partial(_norm, module.weight.data, numbers[0], module.forward)


def _gate_of(module: Any) -> tuple[int, Forward] | None:
    """The width of input and the forward of what may be an MLP with a gate: it holds the three products of one."""
    if not all(isinstance(getattr(module, name, None), nn.Linear) for name in ("gate_proj", "up_proj", "down_proj")):
        return None
    return module.gate_proj.in_features, partial(_gated, module)


@torch.inference_mode()
def _same(module: nn.Module, width: int, forward: Forward) -> bool:
    """Whether ``forward`` gives what the module gives, with numbers of any size."""
    dtype = next(module.parameters()).dtype
    generator = torch.Generator().manual_seed(0)
    for size in (0.01, 1.0, 100.0):
        x = (torch.randn(1, 5, width, generator=generator) * size).to(dtype)
        own, ours = module(x), forward(x)
        if own.shape != ours.shape or own.dtype != ours.dtype:
            return False
        off = (own.double() - ours.double()).abs().amax(-1)
        if not bool((off <= _EQUAL[dtype] * own.double().abs().amax(-1)).all()):
            return False
    return True


def _norm(weight: Tensor, eps: float, own: Forward, x: Tensor) -> Tensor:
    """The norm of each row; ``own`` for rows of another dtype."""
    return elementwise_kernel.rms_norm(x, weight, eps) if x.dtype == weight.dtype else own(x)


def _gated(module: Any, x: Tensor) -> Tensor:
    """down(SiLU(gate(x)) · up(x))."""
    down: Tensor = module.down_proj(elementwise_kernel.silu_gate(module.gate_proj(x), module.up_proj(x)))
    return down
