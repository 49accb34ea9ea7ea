"""What lies between the products, as kernels of our own: root-mean-square norms, and gates of SiLU.

Both round where the models' own code rounds, so that they may stand in for it. Knows numbers and no model: which of a
model's modules compute just this is asked in `native/replacements.py`.
"""

from __future__ import annotations

from functools import cache, partial

import torch
from llvmlite.ir import Value
from torch import Tensor

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


def serves(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the kernels compute rows of this dtype, of any width, on this device."""
    return device.type == "cpu" and dtype in DTYPES


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``weight`` · x / √(mean of x² + eps), of each row [..., width]; both of one dtype."""
    flat = side_by_side(x.reshape(-1, x.shape[-1]))
    out = torch.empty_like(flat)
    _norm_kernel(x.dtype)(
        arguments(flat.data_ptr(), flat.stride(0), weight.data_ptr(), len(weight), bits(eps), out.data_ptr(), len(flat))
    )
    return out.view(x.shape)


def silu_gate(gate: Tensor, up: Tensor) -> Tensor:
    """SiLU(gate) · up, of each row [..., width]; rows may lie apart, a row's numbers side by side."""
    width = gate.shape[-1]
    gates, ups = side_by_side(gate.view(-1, width)), side_by_side(up.view(-1, width))
    out = torch.empty(gate.shape, dtype=gate.dtype)
    _gate_kernel(gate.dtype)(
        arguments(
            gates.data_ptr(), gates.stride(0), ups.data_ptr(), ups.stride(0), width, out.data_ptr(), len(gates)
        )
    )  # fmt: skip
    return out


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
