"""The numbers of a kernel, written as arithmetic: each operator emits the instruction that computes it.

``Int`` is a 64-bit number, ``Float`` a float32, ``Vector`` as many float32 as a vector has lanes, ``Bits`` those lanes'
bits, ``Condition`` what a comparison gives. Plain Python numbers may stand on either side. The one place that knows how
wide a vector is; knows neither memory nor loops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from llvmlite import ir

LANES = 16  # of a vector: one register of AVX-512, two of AVX2, four of NEON

I8, I16, I32, I64, F32 = (*(ir.IntType(bits) for bits in (8, 16, 32, 64)), ir.FloatType())
VECTOR, BITS = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)

_CONTRACT = ("contract",)  # a product and a sum may become one operation
_LEAST = -87.0  # below, exp is taken for zero: less than 2e-38
_LOG2E, _LN2 = 1.44269504088896341, (0.693359375, -2.12194440e-4)
# (exp(r) - 1 - r) / r² for |r| up to half of ln 2, highest power first: the minimax polynomial of Cephes' expf.
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)

Selected = TypeVar("Selected", "Int", "Vector", "Bits")


@dataclass(frozen=True, slots=True, eq=False)
class Int:
    """A 64-bit number: a size, an index, an address."""

    emit: ir.IRBuilder
    raw: ir.Value

    def of(self, value: Int | int) -> Int:
        return value if isinstance(value, Int) else Int(self.emit, ir.Constant(I64, value))

    def __add__(self, other: Int | int) -> Int:
        return Int(self.emit, self.emit.add(self.raw, self.of(other).raw))

    def __sub__(self, other: Int | int) -> Int:
        return Int(self.emit, self.emit.sub(self.raw, self.of(other).raw))

    def __mul__(self, other: Int | int) -> Int:
        return Int(self.emit, self.emit.mul(self.raw, self.of(other).raw))

    def __floordiv__(self, other: Int | int) -> Int:
        """Of what is not negative."""
        return Int(self.emit, self.emit.sdiv(self.raw, self.of(other).raw))

    def __mod__(self, other: Int | int) -> Int:
        """Of what is not negative."""
        return Int(self.emit, self.emit.srem(self.raw, self.of(other).raw))

    def __lt__(self, other: Int | int) -> Condition:
        return self._compared("<", other)

    def __le__(self, other: Int | int) -> Condition:
        return self._compared("<=", other)

    def __gt__(self, other: Int | int) -> Condition:
        return self._compared(">", other)

    def min(self, other: Int | int) -> Int:
        return (self < other).select(self, other)

    def max(self, other: Int | int) -> Int:
        return (self > other).select(self, other)

    def ceil_div(self, size: int) -> Int:
        """How many pieces of this size hold so many."""
        return (self + (size - 1)) // size

    def round_down(self, step: int) -> Int:
        """The last multiple of a power of two that is not above."""
        return Int(self.emit, self.emit.and_(self.raw, self.of(-step).raw))

    def float32(self) -> Float:
        return Float(self.emit, self.emit.sitofp(self.raw, F32))

    def as_float32(self) -> Float:
        """The float32 whose bits are the lower half."""
        return Float(self.emit, self.emit.bitcast(self.emit.trunc(self.raw, I32), F32))

    def first_lanes(self) -> Condition:
        """True in the first so many lanes of a vector."""
        numbered = ir.Constant(ir.VectorType(I64, LANES), list(range(LANES)))
        return Condition(self.emit, self.emit.icmp_signed("<", numbered, _splat(self.emit, self.raw)))

    def _compared(self, relation: str, other: Int | int) -> Condition:
        return Condition(self.emit, self.emit.icmp_signed(relation, self.raw, self.of(other).raw))


@dataclass(frozen=True, slots=True, eq=False)
class Float:
    """One float32, read from memory or made of a vector; beside a vector it stands in all lanes."""

    emit: ir.IRBuilder
    raw: ir.Value

    def splat(self) -> Vector:
        return Vector(self.emit, _splat(self.emit, self.raw))


@dataclass(frozen=True, slots=True, eq=False)
class Vector:
    """LANES float32. Nothing is fused unless ``fma`` says so: each product and sum rounds as torch's does."""

    emit: ir.IRBuilder
    raw: ir.Value

    def of(self, value: Vector | Float | float) -> Vector:
        if isinstance(value, Float):
            return value.splat()
        return value if isinstance(value, Vector) else Vector(self.emit, _constant(VECTOR, value))

    def __add__(self, other: Vector | Float | float) -> Vector:
        return Vector(self.emit, self.emit.fadd(self.raw, self.of(other).raw))

    def __sub__(self, other: Vector | Float | float) -> Vector:
        return Vector(self.emit, self.emit.fsub(self.raw, self.of(other).raw))

    def __mul__(self, other: Vector | Float | float) -> Vector:
        return Vector(self.emit, self.emit.fmul(self.raw, self.of(other).raw))

    def __truediv__(self, other: Vector | Float | float) -> Vector:
        return Vector(self.emit, self.emit.fdiv(self.raw, self.of(other).raw))

    def __rtruediv__(self, other: float) -> Vector:
        return self.of(other) / self

    def __neg__(self) -> Vector:
        return Vector(self.emit, self.emit.fneg(self.raw))

    def __lt__(self, other: Vector | float) -> Condition:
        return Condition(self.emit, self.emit.fcmp_ordered("<", self.raw, self.of(other).raw))

    def __gt__(self, other: Vector | float) -> Condition:
        return Condition(self.emit, self.emit.fcmp_ordered(">", self.raw, self.of(other).raw))

    def is_nan(self) -> Condition:
        return Condition(self.emit, self.emit.fcmp_unordered("uno", self.raw, self.raw))

    def floor(self) -> Vector:
        return Vector(self.emit, intrinsic(self.emit, f"llvm.floor.v{LANES}f32", VECTOR, self.raw))

    def sqrt(self) -> Vector:
        return Vector(self.emit, intrinsic(self.emit, f"llvm.sqrt.v{LANES}f32", VECTOR, self.raw))

    def sum(self) -> Float:
        """Of all lanes, pair by pair."""
        start = ir.Constant(F32, 0.0)
        name = f"llvm.vector.reduce.fadd.v{LANES}f32"
        return Float(self.emit, intrinsic(self.emit, name, F32, start, self.raw, fast=("reassoc",)))

    def largest(self) -> Float:
        name = f"llvm.vector.reduce.fmax.v{LANES}f32"
        return Float(self.emit, intrinsic(self.emit, name, F32, self.raw, fast=("reassoc",)))

    def bits(self) -> Bits:
        return Bits(self.emit, self.emit.bitcast(self.raw, BITS))

    def integers(self) -> Bits:
        """Each lane as an integer, towards zero."""
        return Bits(self.emit, self.emit.fptosi(self.raw, BITS))


@dataclass(frozen=True, slots=True, eq=False)
class Bits:
    """32 bits a lane."""

    emit: ir.IRBuilder
    raw: ir.Value

    def of(self, value: Bits | int) -> Bits:
        return value if isinstance(value, Bits) else Bits(self.emit, _constant(BITS, value))

    def __add__(self, other: Bits | int) -> Bits:
        return Bits(self.emit, self.emit.add(self.raw, self.of(other).raw))

    def __and__(self, other: int) -> Bits:
        return Bits(self.emit, self.emit.and_(self.raw, self.of(other).raw))

    def __lshift__(self, places: int) -> Bits:
        return Bits(self.emit, self.emit.shl(self.raw, self.of(places).raw))

    def __rshift__(self, places: int) -> Bits:
        return Bits(self.emit, self.emit.lshr(self.raw, self.of(places).raw))

    def floats(self) -> Vector:
        return Vector(self.emit, self.emit.bitcast(self.raw, VECTOR))


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """What a comparison gives: one truth of two numbers, one a lane of two vectors."""

    emit: ir.IRBuilder
    raw: ir.Value

    def select(self, yes: Selected, no: Selected | float) -> Selected:
        """``yes`` where it holds, ``no`` elsewhere."""
        return type(yes)(self.emit, self.emit.select(self.raw, yes.raw, yes.of(no).raw))  # type: ignore[arg-type]


def fma(a: Vector, b: Vector | Float | float, c: Vector | float) -> Vector:
    """a · b + c, rounded once where the CPU can."""
    product = a.emit.fmul(a.raw, a.of(b).raw, flags=_CONTRACT)
    return Vector(a.emit, a.emit.fadd(product, a.of(c).raw, flags=_CONTRACT))


def exp(x: Vector) -> Vector:
    """e to the x, for x at most 0; not a number stays so."""
    vanishes = x < _LEAST
    x = vanishes.select(x.of(_LEAST), x)
    power = fma(x, _LOG2E, 0.5).floor()
    rest = x
    for part in _LN2:
        rest = fma(power, -part, rest)
    series = x.of(_EXP[0])
    for factor in _EXP[1:]:
        series = fma(series, rest, factor)
    series = fma(series * rest, rest, rest + 1.0)
    two_to_power = ((power.integers() + 127) << 23).floats()
    return vanishes.select(x.of(0.0), series * two_to_power)


def intrinsic(
    emit: ir.IRBuilder, name: str, returns: ir.Type, *values: ir.Value, fast: tuple[str, ...] = ()
) -> ir.Value:
    """Call a function of LLVM's or of our own, declared on first use."""
    known = emit.module.globals
    if name not in known:
        ir.Function(emit.module, ir.FunctionType(returns, [value.type for value in values]), name)
    return emit.call(known[name], values, fastmath=fast)


def _splat(emit: ir.IRBuilder, scalar: ir.Value) -> ir.Value:
    none = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    first = emit.insert_element(none, scalar, ir.Constant(I32, 0))
    return emit.shuffle_vector(first, none, _constant(BITS, 0))


def _constant(kind: ir.VectorType, value: float) -> ir.Value:
    return ir.Constant(kind, [value] * LANES)
