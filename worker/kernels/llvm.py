"""Small kernels of our own, compiled by LLVM for this very CPU, run by torch's own threads.

A kernel gets an array of 64-bit numbers (addresses, sizes, strides in elements) and which part of the work is its own:
``(arguments, part, parts)``. It runs on the OpenMP team that torch's operations use, so that both share their threads.
No compiler is needed where it runs. Knows no kernel: this is what they are written with.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from llvmlite import binding, ir
from llvmlite.ir import Value
from torch import Tensor

LANES = 16  # of a vector: one register of AVX-512, two of AVX2, four of NEON
DTYPES = (torch.float32, torch.bfloat16)  # what kernels can read and write; they compute in float32

I8, I16, I32, I64, F32 = (*(ir.IntType(bits) for bits in (8, 16, 32, 64)), ir.FloatType())
VECTOR, BITS = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)
_SIGNATURE = (I64.as_pointer(), I64, I64)
_WHO, _WAIT = ("omp_get_thread_num", "omp_get_num_threads"), "GOMP_barrier"
_FUSED = ("contract",)  # a product and a sum may become one operation

_LEAST = -87.0  # below, exp is taken for zero: less than 2e-38
_LOG2E, _LN2 = 1.44269504088896341, (0.693359375, -2.12194440e-4)
# (exp(r) - 1 - r) / r² for |r| up to half of ln 2, highest power first: the minimax polynomial of Cephes' expf.
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)

Kernel = Callable[[ctypes.Array[ctypes.c_int64]], None]


class Code:
    """Writes one function's body. Values are LLVM's: 64-bit numbers, or vectors of float32."""

    def __init__(self, function: ir.Function, arguments: int) -> None:
        self.ir = ir.IRBuilder(function.append_basic_block())
        self._function, self._first = function, function.entry_basic_block
        self.arguments = [self.ir.load(self.ir.gep(function.args[0], [number(at)])) for at in range(arguments)]

    def share(self, items: Value) -> tuple[Value, Value]:
        """The part [first, last) of so many items that is this thread's."""
        _, part, parts = self._function.args
        bounds = (part, self.ir.add(part, number(1)))
        first, last = (self.ir.sdiv(self.ir.mul(items, bound), parts) for bound in bounds)
        return first, last

    def barrier(self) -> None:
        """Wait here until all threads have come so far."""
        self.call("barrier", ir.VoidType())

    @contextmanager
    def loop(self, first: Value, last: Value, step: int = 1) -> Iterator[Value]:
        """Do what follows for first, first + step, ... below ``last``."""
        counter = self.room(I64)
        self.ir.store(first, counter)
        head, body, end = (self._function.append_basic_block() for _ in range(3))
        self.ir.branch(head)
        self.ir.position_at_end(head)
        at = self.ir.load(counter)
        self.ir.cbranch(self.ir.icmp_signed("<", at, last), body, end)
        self.ir.position_at_end(body)
        yield at
        self.ir.store(self.ir.add(at, number(step)), counter)
        self.ir.branch(head)
        self.ir.position_at_end(end)

    def vectors(self, first: Value, last: Value, each: Callable[[Value, Value | None], None]) -> None:
        """Do ``each(at, mask)`` for every vector of [first, last): unmasked, and once with a mask if some lanes are
        left over."""
        whole = self.down_to(first, last, LANES)
        with self.loop(first, whole, LANES) as at:
            each(at, None)
        with self.when("<", whole, last):
            each(whole, self.mask(self.ir.sub(last, whole)))

    @contextmanager
    def when(self, relation: str, a: Value, b: Value) -> Iterator[None]:
        with self.ir.if_then(self.ir.icmp_signed(relation, a, b)):
            yield

    def sum(self, *values: Value | int) -> Value:
        found = _value(values[0])
        for value in values[1:]:
            found = self.ir.add(found, _value(value))
        return found

    def product(self, *values: Value | int) -> Value:
        found = _value(values[0])
        for value in values[1:]:
            found = self.ir.mul(found, _value(value))
        return found

    def least(self, a: Value, b: Value) -> Value:
        return self.ir.select(self.ir.icmp_signed("<", a, b), a, b)

    def most(self, a: Value, b: Value) -> Value:
        return self.ir.select(self.ir.icmp_signed(">", a, b), a, b)

    def pieces(self, size: Value, each: int) -> Value:
        """How many pieces of ``each`` hold ``size``."""
        return self.ir.sdiv(self.sum(size, each - 1), number(each))

    def down_to(self, first: Value, last: Value, step: int) -> Value:
        """Where whole steps (a power of two) from ``first`` on end, at most ``last``."""
        return self.sum(first, self.ir.and_(self.ir.sub(last, first), number(-step)))

    def room(self, kind: ir.Type, count: int = 1) -> Value:
        """Room on the stack for ``count`` of a kind, made once, whatever loop asks for it."""
        with self.ir.goto_block(self._first):
            self.ir.position_at_start(self._first)
            room = self.ir.alloca(kind, count)
            room.align = 64
            return room

    def at(self, address: Value, index: Value, kind: ir.Type) -> Value:
        """A pointer to element ``index`` of the array of ``kind`` at an address."""
        return self.ir.gep(self.ir.inttoptr(address, kind.as_pointer()), [index])

    def int64(self, address: Value, index: Value) -> Value:
        """Element ``index`` of an array of numbers."""
        return self.ir.load(self.at(address, index, I64))

    def float(self, number: Value) -> Value:
        """The float32 whose ``bits`` an argument is."""
        return self.ir.bitcast(self.ir.trunc(number, I32), F32)

    def int32(self, address: Value, index: Value) -> Value:
        """Element ``index`` of an array of 32-bit numbers."""
        return self.ir.sext(self.ir.load(self.at(address, index, I32)), I64)

    def multiply_add(self, a: Value, b: Value, c: Value) -> Value:
        return self.ir.fadd(self.ir.fmul(a, b, flags=_FUSED), c, flags=_FUSED)

    def exp(self, x: Value) -> Value:
        """e to the x, for x at most 0; not a number stays so."""
        nothing = self.ir.fcmp_ordered("<", x, every(VECTOR, _LEAST))
        x = self.ir.select(nothing, every(VECTOR, _LEAST), x)
        scaled = self.multiply_add(x, every(VECTOR, _LOG2E), every(VECTOR, 0.5))
        power = self.call(f"llvm.floor.v{LANES}f32", VECTOR, scaled)
        rest = x
        for part in _LN2:
            rest = self.multiply_add(power, every(VECTOR, -part), rest)
        found = every(VECTOR, _EXP[0])
        for factor in _EXP[1:]:
            found = self.multiply_add(found, rest, every(VECTOR, factor))
        found = self.multiply_add(self.ir.fmul(found, rest), rest, self.ir.fadd(rest, every(VECTOR, 1.0)))
        exponent = self.ir.shl(self.ir.add(self.ir.fptosi(power, BITS), every(BITS, 127)), every(BITS, 23))
        return self.ir.select(nothing, every(VECTOR, 0.0), self.ir.fmul(found, self.ir.bitcast(exponent, VECTOR)))

    def splat(self, scalar: Value) -> Value:
        """The same number in all lanes."""
        none = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
        first = self.ir.insert_element(none, scalar, ir.Constant(I32, 0))
        return self.ir.shuffle_vector(first, none, every(BITS, 0))

    def reduced(self, how: str, vector: Value) -> Value:
        """All lanes' sum (``fadd``, pair by pair) or largest (``fmax``)."""
        start = [ir.Constant(F32, 0.0)] if how == "fadd" else []
        return self.call(f"llvm.vector.reduce.{how}.v{LANES}f32", F32, *start, vector, fast=("reassoc",))

    def mask(self, lanes: Value) -> Value:
        """True in the first so many lanes."""
        numbered = ir.Constant(ir.VectorType(I64, LANES), list(range(LANES)))
        return self.ir.icmp_signed("<", numbered, self.splat(lanes))

    def prefetch(self, address: Value, index: Value, kind: ir.Type) -> None:
        """Have memory brought near that will be read soon; any address is harmless."""
        pointer = self.ir.bitcast(self.at(address, index, kind), I8.as_pointer())
        self.call("llvm.prefetch.p0", ir.VoidType(), pointer, *(ir.Constant(I32, what) for what in (0, 3, 1)))

    def call(self, name: str, returns: ir.Type, *values: Value, fast: tuple[str, ...] = ()) -> Value:
        """Call an intrinsic, declared on first use."""
        known = self.ir.module.globals
        if name not in known:
            ir.Function(self.ir.module, ir.FunctionType(returns, [value.type for value in values]), name)
        return self.ir.call(known[name], values, fastmath=fast)


class Floats:
    """How vectors of one dtype are read and written, as float32."""

    def __init__(self, code: Code, dtype: torch.dtype) -> None:
        assert dtype in DTYPES, f"no kernel reads {dtype}"
        self._code, self._half = code, dtype == torch.bfloat16
        self.kind = I16 if self._half else F32
        self._stored, self._align = ir.VectorType(self.kind, LANES), 2 if self._half else 4

    def load(self, address: Value, index: Value, mask: Value | None = None) -> Value:
        """The vector from element ``index`` on; lanes outside ``mask`` are zero and not touched."""
        at = self._code.ir
        pointer = at.bitcast(self._code.at(address, index, self.kind), self._stored.as_pointer())
        if mask is None:
            found = at.load(pointer, align=self._align)
        else:
            zero, align = ir.Constant(self._stored, None), ir.Constant(I32, self._align)
            found = self._code.call(self._named("load"), self._stored, pointer, align, mask, zero)
        return at.bitcast(at.shl(at.zext(found, BITS), every(BITS, 16)), VECTOR) if self._half else found

    def store(self, value: Value, address: Value, index: Value, mask: Value | None = None) -> None:
        """Write a vector, rounded to nearest even; lanes outside ``mask`` are not touched."""
        at = self._code.ir
        pointer = at.bitcast(self._code.at(address, index, self.kind), self._stored.as_pointer())
        value = at.trunc(self._upper(value), self._stored) if self._half else value
        if mask is None:
            at.store(value, pointer, align=self._align)
        else:
            align = ir.Constant(I32, self._align)
            self._code.call(self._named("store"), ir.VoidType(), value, pointer, align, mask)

    def _named(self, what: str) -> str:
        return f"llvm.masked.{what}.v{LANES}{'i16' if self._half else 'f32'}.p0"

    def rounded(self, value: Value) -> Value:
        """What a vector is after it was stored and loaded."""
        at = self._code.ir
        return at.bitcast(at.shl(self._upper(value), every(BITS, 16)), VECTOR) if self._half else value

    def _upper(self, value: Value) -> Value:
        """The upper half of each number's bits, rounded to nearest even."""
        at = self._code.ir
        found = at.bitcast(value, BITS)
        odd = at.and_(at.lshr(found, every(BITS, 16)), every(BITS, 1))
        nearest = at.lshr(at.add(at.add(found, every(BITS, 0x7FFF)), odd), every(BITS, 16))
        return at.select(at.fcmp_unordered("uno", value, value), every(BITS, 0x7FC0), nearest)


def number(value: int) -> Value:
    """A constant."""
    return ir.Constant(I64, value)


def every(kind: ir.VectorType, value: float) -> Value:
    """The same constant in all lanes."""
    return ir.Constant(kind, [value] * LANES)


def _value(value: Value | int) -> Value:
    return number(value) if isinstance(value, int) else value


def compiled(write: Callable[[Code], None], arguments: int) -> Kernel:
    """Compile what ``write`` writes; the kernel takes its arguments and runs to the end on all of torch's threads."""
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), _SIGNATURE), "kernel")
    code = Code(function, arguments)
    write(code)
    code.ir.ret_void()
    team = _team()
    (_add_team if team is not None else _add_loner)(module, function)
    engine, address = _machine_code(str(module))
    alone = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)

    def kernel(given: ctypes.Array[ctypes.c_int64], _keep: object = engine) -> None:
        if team is not None:
            team(address, ctypes.addressof(given), torch.get_num_threads(), 0)
        else:
            alone(ctypes.addressof(given))

    return kernel


def arguments(*numbers: int) -> ctypes.Array[ctypes.c_int64]:
    """What a kernel is given."""
    return (ctypes.c_int64 * len(numbers))(*numbers)


def side_by_side(rows: Tensor) -> Tensor:
    """``rows`` as kernels read them: a row's numbers one after another, wherever the next row is."""
    return rows if rows.stride(-1) == 1 else rows.contiguous()


def bits(value: float) -> int:
    """A float32 as an argument."""
    found: int = struct.unpack("=i", struct.pack("=f", value))[0]
    return found


def _add_team(module: ir.Module, kernel: ir.Function) -> None:
    """The function that each thread of the team runs: it asks which part is its own."""
    asked = [ir.Function(module, ir.FunctionType(I32, []), name) for name in _WHO]
    at, given = _member(module)
    at.call(kernel, [given, *(at.sext(at.call(function, []), I64) for function in asked)])
    at.ret_void()
    wait = ir.Function(module, ir.FunctionType(ir.VoidType(), []), _WAIT)
    _define_barrier(module, wait)


def _add_loner(module: ir.Module, kernel: ir.Function) -> None:
    """The function that one thread runs alone: all is its part, and it waits for nobody."""
    at, given = _member(module)
    at.call(kernel, [given, number(0), number(1)])
    at.ret_void()
    _define_barrier(module, None)


def _member(module: ir.Module) -> tuple[ir.IRBuilder, Value]:
    member = ir.Function(module, ir.FunctionType(ir.VoidType(), _SIGNATURE[:1]), "member")
    return ir.IRBuilder(member.append_basic_block()), member.args[0]


def _define_barrier(module: ir.Module, wait: ir.Function | None) -> None:
    known = module.globals
    kind = ir.FunctionType(ir.VoidType(), [])
    barrier = known["barrier"] if "barrier" in known else ir.Function(module, kind, "barrier")
    at = ir.IRBuilder(barrier.append_basic_block())
    if wait is not None:
        at.call(wait, [])
    at.ret_void()


def _machine_code(text: str) -> tuple[object, int]:
    """The engine, which must live as long as its code is used, and the address of ``member``."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    module = binding.parse_assembly(text)
    module.verify()
    machine = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=binding.get_host_cpu_features().flatten(), opt=3
    )
    passes = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(module, passes)
    engine = binding.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return engine, engine.get_function_address("member")


@cache
def _team() -> Callable[..., None] | None:
    """``GOMP_parallel`` of the OpenMP library that torch uses; None where it uses another kind of threads."""
    library = _openmp()
    if library is None:
        return None
    for name in (*_WHO, _WAIT):
        address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        binding.add_symbol(name, address)
    run: Callable[..., None] = library.GOMP_parallel
    run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]  # type: ignore[attr-defined]
    run.restype = None  # type: ignore[attr-defined]
    return run


def _openmp() -> ctypes.CDLL | None:
    """The one OpenMP library in this process, torch's own where there are several."""
    torch.get_num_threads()
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.exists() else []
    paths = {line.split(maxsplit=5)[-1] for line in lines if "libgomp" in line or "libiomp5" in line}
    for path in sorted(paths, key=lambda path: "torch" not in path):
        library = ctypes.CDLL(path)
        if hasattr(library, "GOMP_parallel"):
            return library
    return None
