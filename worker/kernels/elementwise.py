"""What lies between the products, as kernels of our own: root-mean-square norms, and gates of SiLU.

A module is only replaced if its own forward gives the same on random numbers, to the rounding of its dtype: classes are
not known by name, and a norm that does something else keeps its own code.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from llvmlite.ir import Value
from torch import Tensor, nn

from lorapool.worker.kernels.llvm import (
    DTYPES,
    VECTOR,
    Code,
    Floats,
    Kernel,
    arguments,
    bits,
    compiled,
    every,
    number,
    side_by_side,
)

_EQUAL = {torch.float32: 2e-6, torch.bfloat16: 2.0**-7}  # one rounding, relative to the row's largest

Forward = Callable[[Tensor], Tensor]


def replacements(model: nn.Module) -> dict[nn.Module, Forward]:
    """Faster forwards of the model's modules, by module; each was compared with the module's own."""
    first = next(model.parameters())
    if first.device.type != "cpu" or first.dtype not in DTYPES:
        return {}
    found: dict[nn.Module, Forward] = {}
    for module in model.modules():
        made = _made(module, first.dtype)
        if made is not None and _same(module, *made):
            found[module] = made[1]
    return found


def _made(module: Any, dtype: torch.dtype) -> tuple[int, Forward] | None:
    """A module's width of input and a forward that may be its own."""
    weight, eps = getattr(module, "weight", None), getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if "RMSNorm" in type(module).__name__ and isinstance(weight, Tensor) and weight.dtype == dtype and eps is not None:
        return len(weight), partial(_norm, weight.data, bits(eps), module.forward)
    if all(isinstance(getattr(module, name, None), nn.Linear) for name in ("gate_proj", "up_proj", "down_proj")):
        return module.gate_proj.in_features, partial(_gated, module)
    return None


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


def _norm(weight: Tensor, eps: int, own: Forward, x: Tensor) -> Tensor:
    """``weight`` · x / √(mean of x² + eps), of each row [..., width]; ``eps`` as a kernel's argument. ``own`` for rows
    of another dtype."""
    if x.dtype != weight.dtype:
        return own(x)
    flat = side_by_side(x.reshape(-1, x.shape[-1]))
    out = torch.empty_like(flat)
    _norm_kernel(x.dtype)(
        arguments(flat.data_ptr(), flat.stride(0), weight.data_ptr(), len(weight), eps, out.data_ptr(), len(flat))
    )
    return out.view(x.shape)


def _gated(module: Any, x: Tensor) -> Tensor:
    """down(SiLU(gate(x)) · up(x))."""
    gate, up = module.gate_proj(x), module.up_proj(x)
    width = gate.shape[-1]
    gates, ups = gate.view(-1, width), up.view(-1, width)
    out = torch.empty(*gate.shape, dtype=gate.dtype)
    _gate_kernel(gate.dtype)(
        arguments(
            gates.data_ptr(), gates.stride(0), ups.data_ptr(), ups.stride(0), width, out.data_ptr(), len(gates)
        )
    )  # fmt: skip
    found: Tensor = module.down_proj(out)
    return found


@cache
def _norm_kernel(dtype: torch.dtype) -> Kernel:
    return compiled(partial(_write_norm, dtype), 7)


@cache
def _gate_kernel(dtype: torch.dtype) -> Kernel:
    return compiled(partial(_write_gate, dtype), 7)


def _write_norm(dtype: torch.dtype, code: Code) -> None:
    """An item is a row. What the weight multiplies is rounded before, as the model's own is."""
    x, stride, weight, width, eps, out, count = code.arguments
    floats, squares = Floats(code, dtype), code.room(VECTOR)

    def add(row: Value, at: Value, mask: Value | None) -> None:
        found = floats.load(x, code.sum(row, at), mask)
        code.ir.store(code.multiply_add(found, found, code.ir.load(squares)), squares)

    def write(row: Value, target: Value, factor: Value, at: Value, mask: Value | None) -> None:
        found = floats.rounded(code.ir.fmul(floats.load(x, code.sum(row, at), mask), factor))
        floats.store(code.ir.fmul(floats.load(weight, at, mask), found), out, code.sum(target, at), mask)

    first, last = code.share(count)
    with code.loop(first, last) as item:
        row, target = code.product(item, stride), code.product(item, width)
        code.ir.store(every(VECTOR, 0.0), squares)
        code.vectors(number(0), width, partial(add, row))
        total = code.splat(code.reduced("fadd", code.ir.load(squares)))
        mean = code.ir.fdiv(total, code.splat(code.ir.sitofp(width, VECTOR.element)))
        root = code.call("llvm.sqrt.v16f32", VECTOR, code.ir.fadd(mean, code.splat(code.float(eps))))
        code.vectors(number(0), width, partial(write, row, target, code.ir.fdiv(every(VECTOR, 1.0), root)))


def _write_gate(dtype: torch.dtype, code: Code) -> None:
    """An item is a row. SiLU is rounded before it is multiplied, as the model's own is."""
    gate, gate_stride, up, up_stride, width, out, count = code.arguments
    floats, one = Floats(code, dtype), every(VECTOR, 1.0)

    def write(item: Value, at: Value, mask: Value | None) -> None:
        x = floats.load(gate, code.sum(code.product(item, gate_stride), at), mask)
        negative = code.ir.fcmp_ordered("<", x, every(VECTOR, 0.0))
        small = code.exp(code.ir.select(negative, x, code.ir.fneg(x)))  # of -|x|: cannot overflow
        share = code.ir.fdiv(code.ir.select(negative, small, one), code.ir.fadd(one, small))
        other = floats.load(up, code.sum(code.product(item, up_stride), at), mask)
        found = code.ir.fmul(floats.rounded(code.ir.fmul(x, share)), other)
        floats.store(found, out, code.sum(code.product(item, width), at), mask)

    first, last = code.share(count)
    with code.loop(first, last) as item:
        code.vectors(number(0), width, partial(write, item))
