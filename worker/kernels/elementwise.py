"""What lies between the products, as kernels of our own: root-mean-square norms, and gates of SiLU.

Both round where the models' own code rounds, so that they may stand in for it. Knows numbers and no model: which of a
model's modules compute just this is asked in `native/replacements.py`.
"""

from __future__ import annotations

from functools import cache, partial

import torch
from torch import Tensor

from lorapool.worker.kernels import llvm
from lorapool.worker.kernels.llvm import Kernel, arguments, bits, compiled, side_by_side
from lorapool.worker.kernels.memory import DTYPES
from lorapool.worker.kernels.program import Program
from lorapool.worker.kernels.values import Condition, Int, exp, fma


def serves(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the kernels compute rows of this dtype, of any width, on this device."""
    return device.type == "cpu" and dtype in DTYPES and llvm.at_hand()


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``weight`` · x / √(mean of x² + eps), of each row [..., width]; both of one dtype."""
    flat = side_by_side(x.reshape(-1, x.shape[-1]))
    out = torch.empty_like(flat)
    _norm_kernel(x.dtype)(
        arguments(flat.data_ptr(), flat.stride(0), weight.data_ptr(), len(weight), bits(eps), out.data_ptr(), len(flat))
    )
    return out.view(x.shape)


def add_rms_norm(residual: Tensor, part: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Add ``part`` to ``residual`` in place, both [rows, width] of the weight's dtype; return the sum's norm."""
    assert residual.stride(1) == 1, "the residual's rows must lie as they are, each side by side"
    part, out = side_by_side(part), torch.empty_like(residual)
    _add_norm_kernel(residual.dtype)(
        arguments(
            residual.data_ptr(), residual.stride(0), part.data_ptr(), part.stride(0), weight.data_ptr(), len(weight),
            bits(eps), out.data_ptr(), residual.shape[0],
        )
    )  # fmt: skip
    return out


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Turn the halves of each head [rows, heads, dim] in place, by the angles of its row [rows, dim]; heads of a row
    lie one after another."""
    rows, count, dim = heads.shape
    assert heads.stride(2) == 1 and heads.stride(1) == dim, "heads of a row must lie one after another"
    cos, sin = cos.contiguous(), sin.contiguous()
    _rotate_kernel(heads.dtype)(
        arguments(heads.data_ptr(), heads.stride(0), count, dim, cos.data_ptr(), sin.data_ptr(), rows)
    )


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
    return compiled(partial(_emit_norm, dtype), 7)


@cache
def _add_norm_kernel(dtype: torch.dtype) -> Kernel:
    return compiled(partial(_emit_add_norm, dtype), 9)


@cache
def _rotate_kernel(dtype: torch.dtype) -> Kernel:
    return compiled(partial(_emit_rotate, dtype), 7)


@cache
def _gate_kernel(dtype: torch.dtype) -> Kernel:
    return compiled(partial(_emit_gate, dtype), 7)


def _emit_norm(dtype: torch.dtype, program: Program) -> None:
    """An item is a row. What the weight multiplies is rounded before, as the model's own is."""
    x_address, stride, weight_address, width, eps, out_address, count = program.arguments
    x, weight, out = (program.floats(address, dtype) for address in (x_address, weight_address, out_address))
    squares = program.variable()

    def add(row: Int, at: Int, mask: Condition | None) -> None:
        value = x.load(row * stride + at, mask)
        squares.set(fma(value, value, squares.get()))

    with program.items(count) as row:
        squares.set(program.vector(0.0))
        program.vectors(0, width, partial(add, row))
        mean = squares.get().sum().splat() / width.float32()
        factor = 1.0 / (mean + eps.as_float32()).sqrt()

        def write(at: Int, mask: Condition | None) -> None:
            normed = x.rounded(x.load(row * stride + at, mask) * factor)
            out.store(row * width + at, weight.load(at, mask) * normed, mask)

        program.vectors(0, width, write)


def _emit_add_norm(dtype: torch.dtype, program: Program) -> None:
    """An item is a row. The sum is rounded as it is stored, and its rounded numbers are normed."""
    sum_address, sum_stride, part_address, part_stride, weight_address, width, eps, out_address, count = (
        program.arguments
    )
    addresses = (sum_address, part_address, weight_address, out_address)
    total, part, weight, out = (program.floats(address, dtype) for address in addresses)
    squares = program.variable()

    def add(row: Int, at: Int, mask: Condition | None) -> None:
        place = row * sum_stride + at
        value = total.rounded(total.load(place, mask) + part.load(row * part_stride + at, mask))
        total.store(place, value, mask)
        squares.set(fma(value, value, squares.get()))

    with program.items(count) as row:
        squares.set(program.vector(0.0))
        program.vectors(0, width, partial(add, row))
        factor = 1.0 / (squares.get().sum().splat() / width.float32() + eps.as_float32()).sqrt()

        def write(at: Int, mask: Condition | None) -> None:
            normed = total.rounded(total.load(row * sum_stride + at, mask) * factor)
            out.store(row * width + at, weight.load(at, mask) * normed, mask)

        program.vectors(0, width, write)


def _emit_rotate(dtype: torch.dtype, program: Program) -> None:
    """An item is a row, all its heads."""
    heads_address, stride, heads, dim, cos_address, sin_address, count = program.arguments
    x, cos, sin = (program.floats(address, dtype) for address in (heads_address, cos_address, sin_address))
    half = dim // 2

    def turn(angle: Int, first: Int, at: Int, mask: Condition | None) -> None:
        low, high, second = angle + at, angle + half + at, first + half + at
        a, b = x.load(first + at, mask), x.load(second, mask)
        turned = a * cos.load(low, mask) - b * sin.load(low, mask)
        x.store(second, fma(b, cos.load(high, mask), a * sin.load(high, mask)), mask)
        x.store(first + at, turned, mask)

    with program.items(count) as row, program.loop(0, heads) as head:
        program.vectors(0, half, partial(turn, row * dim, row * stride + head * dim))


def _emit_gate(dtype: torch.dtype, program: Program) -> None:
    """An item is a row. SiLU is rounded before it is multiplied, as the model's own is."""
    gate_address, gate_stride, up_address, up_stride, width, out_address, count = program.arguments
    gate, up, out = (program.floats(address, dtype) for address in (gate_address, up_address, out_address))

    def write(row: Int, at: Int, mask: Condition | None) -> None:
        x = gate.load(row * gate_stride + at, mask)
        negative = x < 0.0
        small = exp(negative.select(x, -x))  # of -|x|: cannot overflow
        sigmoid = negative.select(small, x.of(1.0)) / (small + 1.0)
        silu = gate.rounded(x * sigmoid)
        out.store(row * width + at, silu * up.load(row * up_stride + at, mask), mask)

    with program.items(count) as row:
        program.vectors(0, width, partial(write, row))
