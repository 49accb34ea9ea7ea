"""Products with a weight packed once, in float32, as a kernel of our own for CPUs whose vectors have eight lanes.

At the row counts of decoding it is a quarter faster there than oneDNN's packed product; where vectors are wider, oneDNN
has not been beaten, and this does not serve. A row's sums are made in the same order whatever its neighbours are, so
that a row's numbers are the same bit for bit in any batch.
"""

from __future__ import annotations

from functools import cache

import torch
from llvmlite import binding
from torch import Tensor

from lorapool.worker.kernels import llvm
from lorapool.worker.kernels.llvm import Kernel, arguments, compiled, side_by_side
from lorapool.worker.kernels.program import Program
from lorapool.worker.kernels.values import LANES, Int, fma

_ROWS = 6  # computed together: twelve registers of sums, of the sixteen that AVX2 has
_DEPTH = 192  # inputs before sums are put down: so much of a panel of weights stays in the first cache
_FEW = 8  # groups of rows
_BATCH = 96  # rows before the next panels are read: their inputs stay in the second cache


def serves(weight: Tensor) -> bool:
    """Whether the kernel computes products with this weight [out, in], and should here."""
    fits = weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.shape[0] % LANES == 0
    return fits and _eight_lanes() and llvm.at_hand()


def packed(weight: Tensor) -> Tensor:
    """A weight [out, in] as the kernel reads it: [panels, in, LANES], a panel being LANES neighbouring outputs."""
    out, width = weight.shape
    return weight.view(out // LANES, LANES, width).transpose(1, 2).contiguous()


def matmul(x: Tensor, panels: Tensor, bias: Tensor) -> Tensor:
    """x · weightᵀ + bias: ``x`` [..., in], ``bias`` [out] → [..., out]."""
    rows = side_by_side(x.reshape(-1, x.shape[-1]))
    count, width = rows.shape
    out = torch.empty(count, bias.shape[0])
    _kernel()(
        arguments(
            rows.data_ptr(), rows.stride(0), count, width, panels.data_ptr(), panels.shape[0], bias.data_ptr(),
            out.data_ptr(),
        )
    )  # fmt: skip
    return out.view(*x.shape[:-1], -1)


@cache
def _eight_lanes() -> bool:
    features = binding.get_host_cpu_features()
    return bool(features.get("avx2")) and bool(features.get("fma")) and not features.get("avx512f")


@cache
def _kernel() -> Kernel:
    return compiled(_emit, 8)


def _emit(program: Program) -> None:
    """An item is a panel. The last rows of a batch are filled up with the very last one, written more than once."""
    x_address, stride, count, width, weight_address, panels, bias_address, out_address = program.arguments
    addresses = (x_address, weight_address, bias_address, out_address)
    x, weight, bias, out = (program.floats(address, torch.float32) for address in addresses)
    sums = [program.variable() for _ in range(_ROWS)]

    def multiply(panel: Int, rows: list[Int], low: Int, high: Int) -> None:
        places = [(row * panels + panel) * LANES for row in rows]
        for total, place in zip(sums, places, strict=True):
            total.set((low < 1).select(bias.load(panel * LANES), out.load(place)))
        with program.loop(low, high) as at:
            factors = weight.load((panel * width + at) * LANES)
            for total, row in zip(sums, rows, strict=True):
                total.set(fma(factors, x[row * stride + at], total.get()))
        for total, place in zip(sums, places, strict=True):
            out.store(place, total.get())

    def bring(line: Int, lines: Int) -> None:
        with program.loop(line, line + lines) as at:
            weight.prefetch(at * LANES, cache=2)

    with program.loop(0, count, _BATCH) as start:
        stop = (start + _BATCH).min(count)
        groups = (stop - start).ceil_div(_ROWS)
        with program.items(panels) as panel, program.loop(0, width, _DEPTH) as low:
            high = (low + _DEPTH).min(width)
            # Of what comes next, while one group of rows is computed; few groups are done before it could have come.
            lines = (groups < _FEW).select(program.const(0), (high - low + groups - 1) // groups)
            with program.loop(0, groups) as group:
                bring(panel * width + high + group * lines, lines)
                first = start + group * _ROWS
                multiply(panel, [(first + row).min(stop - 1) for row in range(_ROWS)], low, high)
