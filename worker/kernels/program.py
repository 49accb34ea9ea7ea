"""One kernel's body as it is written: its arguments, its loops, its share of the threads, its room on the stack.

Every thread of the team runs the same program and takes the items that are its own. Knows no kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from llvmlite import ir

from lorapool.worker.kernels.memory import Floats
from lorapool.worker.kernels.values import F32, I64, LANES, VECTOR, Condition, Int, Vector, intrinsic

Each = Callable[
    [Int, Condition | None], None
]  # what is done with a vector: where it begins, and its mask if it has one


@dataclass(frozen=True, slots=True, eq=False)
class Variable:
    """A vector that changes while the program runs; LLVM keeps it in a register where it can."""

    emit: ir.IRBuilder
    place: ir.Value

    def get(self) -> Vector:
        return Vector(self.emit, self.emit.load(self.place))

    def set(self, value: Vector) -> None:
        self.emit.store(value.raw, self.place)


class Program:
    """Writes one function, ``(arguments, thread, threads)``."""

    def __init__(self, function: ir.Function, arguments: int) -> None:
        self._emit = ir.IRBuilder(function.append_basic_block())
        self._function, self._entry = function, function.entry_basic_block
        given, self._thread, self._threads = function.args
        places = [self._emit.gep(given, [ir.Constant(I64, at)]) for at in range(arguments)]
        self.arguments = [Int(self._emit, self._emit.load(place)) for place in places]

    def end(self) -> None:
        self._emit.ret_void()

    def const(self, value: Int | int) -> Int:
        return value if isinstance(value, Int) else Int(self._emit, ir.Constant(I64, value))

    def vector(self, value: float) -> Vector:
        """A constant, in all lanes."""
        return Vector(self._emit, ir.Constant(VECTOR, [value] * LANES))

    def floats(self, address: Int, dtype: torch.dtype) -> Floats:
        """The floats at an address."""
        return Floats(self._emit, address.raw, dtype)

    def buffer(self, count: int) -> Floats:
        """Room on the stack for so many float32, made once, whatever loop asks for it."""
        return Floats(self._emit, self._alloca(F32, count))

    def variable(self) -> Variable:
        return Variable(self._emit, self._alloca(VECTOR, 1))

    @contextmanager
    def items(self, count: Int) -> Iterator[Int]:
        """Do what follows for this thread's part of so many items."""
        thread, threads = Int(self._emit, self._thread), Int(self._emit, self._threads)
        with self.loop(count * thread // threads, count * (thread + 1) // threads) as item:
            yield item

    @contextmanager
    def loop(self, first: Int | int, last: Int, step: int = 1) -> Iterator[Int]:
        """Do what follows for first, first + step, ... below ``last``."""
        emit, counter = self._emit, self._alloca(I64, 1)
        emit.store(self.const(first).raw, counter)
        head, body, end = (self._function.append_basic_block() for _ in range(3))
        emit.branch(head)
        emit.position_at_end(head)
        at = Int(emit, emit.load(counter))
        emit.cbranch((at < last).raw, body, end)
        emit.position_at_end(body)
        yield at
        emit.store((at + step).raw, counter)
        emit.branch(head)
        emit.position_at_end(end)

    def vectors(self, first: Int | int, last: Int, each: Each) -> None:
        """Do ``each`` for every vector of [first, last): unmasked, and once with a mask if some lanes are left over."""
        first = self.const(first)
        whole = first + (last - first).round_down(LANES)
        with self.loop(first, whole, LANES) as at:
            each(at, None)
        with self.when(whole < last):
            each(whole, (last - whole).first_lanes())

    @contextmanager
    def when(self, condition: Condition) -> Iterator[None]:
        with self._emit.if_then(condition.raw):
            yield

    def barrier(self) -> None:
        """Wait here until all threads have come so far."""
        intrinsic(self._emit, "barrier", ir.VoidType())

    def _alloca(self, kind: ir.Type, count: int) -> ir.Value:
        with self._emit.goto_block(self._entry):
            self._emit.position_at_start(self._entry)
            place = self._emit.alloca(kind, count)
            place.align = 64
            return place
