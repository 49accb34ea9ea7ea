"""Arrays in memory as a kernel sees them: numbers by index, vectors of floats by the index of their first.

Floats are float32 or bfloat16 as they lie and float32 once loaded; what is stored is rounded to nearest even. Knows
types, and nothing of shapes: an index is computed by whoever knows what lies there.
"""

from __future__ import annotations

import torch
from llvmlite import ir

from lorapool.worker.kernels.values import (
    BITS,
    F32,
    I8,
    I16,
    I32,
    I64,
    LANES,
    Bits,
    Condition,
    Float,
    Int,
    Vector,
    intrinsic,
)

DTYPES = (torch.float32, torch.bfloat16)  # what kernels read and write; they compute in float32


class Ints:
    """An array of 32-bit or 64-bit numbers."""

    def __init__(self, address: Int, bits: int = 64) -> None:
        self._emit = address.emit
        self._start = self._emit.inttoptr(address.raw, (I32 if bits == 32 else I64).as_pointer())

    def __getitem__(self, index: Int | int) -> Int:
        at = ir.Constant(I64, index) if isinstance(index, int) else index.raw
        return Int(self._emit, self._emit.sext(self._emit.load(self._emit.gep(self._start, [at])), I64))


class Floats:
    """An array of floats of one dtype, from ``start`` on: an address, or room that the kernel made for itself."""

    def __init__(self, emit: ir.IRBuilder, start: ir.Value, dtype: torch.dtype = torch.float32) -> None:
        assert dtype in DTYPES, f"no kernel reads {dtype}"
        self._emit, self._half = emit, dtype == torch.bfloat16
        self._kind, self._align = (I16, 2) if self._half else (F32, 4)
        self._stored = ir.VectorType(self._kind, LANES)
        self._start = start if start.type.is_pointer else emit.inttoptr(start, self._kind.as_pointer())

    def load(self, index: Int, mask: Condition | None = None) -> Vector:
        """The vector from element ``index`` on; lanes outside ``mask`` are zero and not touched."""
        pointer = self._vector_at(index)
        if mask is None:
            raw = self._emit.load(pointer, align=self._align)
        else:
            zero, align = ir.Constant(self._stored, None), ir.Constant(I32, self._align)
            raw = intrinsic(self._emit, self._masked("load"), self._stored, pointer, align, mask.raw, zero)
        return _widened(Bits(self._emit, self._emit.zext(raw, BITS))) if self._half else Vector(self._emit, raw)

    def store(self, index: Int, value: Vector, mask: Condition | None = None) -> None:
        """Write a vector; lanes outside ``mask`` are not touched."""
        pointer = self._vector_at(index)
        raw = self._emit.trunc(_upper_half(value).raw, self._stored) if self._half else value.raw
        if mask is None:
            self._emit.store(raw, pointer, align=self._align)
        else:
            align = ir.Constant(I32, self._align)
            intrinsic(self._emit, self._masked("store"), ir.VoidType(), raw, pointer, align, mask.raw)

    def rounded(self, value: Vector) -> Vector:
        """What a vector is after it was stored and loaded."""
        return _widened(_upper_half(value)) if self._half else value

    def prefetch(self, index: Int, cache: int = 1) -> None:
        """Have memory brought near that will be read soon: into the first cache or the second. Any address is
        harmless."""
        pointer = self._emit.bitcast(self._at(index), I8.as_pointer())
        reads, locality, data = (ir.Constant(I32, what) for what in (0, 4 - cache, 1))
        intrinsic(self._emit, "llvm.prefetch.p0", ir.VoidType(), pointer, reads, locality, data)

    def __getitem__(self, index: Int) -> Float:
        """One number of an array of float32."""
        assert not self._half, "single numbers are read of float32 only"
        return Float(self._emit, self._emit.load(self._at(index)))

    def __setitem__(self, index: Int, value: Float) -> None:
        assert not self._half, "single numbers are written to float32 only"
        self._emit.store(value.raw, self._at(index))

    def _at(self, index: Int) -> ir.Value:
        return self._emit.gep(self._start, [index.raw])

    def _vector_at(self, index: Int) -> ir.Value:
        return self._emit.bitcast(self._at(index), self._stored.as_pointer())

    def _masked(self, what: str) -> str:
        return f"llvm.masked.{what}.v{LANES}{'i16' if self._half else 'f32'}.p0"


def _widened(upper: Bits) -> Vector:
    return (upper << 16).floats()


def _upper_half(value: Vector) -> Bits:
    """The upper half of each number's bits, rounded to nearest even."""
    bits = value.bits()
    odd = (bits >> 16) & 1
    nearest = (bits + 0x7FFF + odd) >> 16
    return value.is_nan().select(bits.of(0x7FC0), nearest)
