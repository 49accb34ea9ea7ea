"""Compiles a kernel by LLVM for this very CPU and runs it on torch's own threads.

A kernel gets an array of 64-bit numbers (addresses, sizes, strides in elements) and which thread of how many it is:
``(arguments, thread, threads)``. It runs on the OpenMP team that torch's operations use, so that both share their
threads. No compiler is needed where it runs. Knows no kernel, and nothing of how a program is written.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path

import structlog
import torch
from llvmlite import binding, ir
from torch import Tensor

from lorapool.worker.kernels.program import Program
from lorapool.worker.kernels.values import I32, I64, LANES

log = structlog.get_logger()

_SIGNATURE = (I64.as_pointer(), I64, I64)
_WHO, _WAIT = ("omp_get_thread_num", "omp_get_num_threads"), "GOMP_barrier"

Kernel = Callable[[ctypes.Array[ctypes.c_int64]], None]


@cache
def at_hand() -> bool:
    """Whether LLVM compiles for this CPU here, and what it compiled may be run."""
    lanes = (ctypes.c_float * LANES)()
    try:
        compiled(_emit_ones, 1)(arguments(ctypes.addressof(lanes)))
    except (OSError, RuntimeError) as error:
        log.warning("kernels cannot be compiled here: torch computes instead, more slowly", reason=str(error))
        return False
    return list(lanes) == [1.0] * LANES


@cache
def registers() -> int:
    """How many vectors this CPU's registers hold: 32 with AVX-512, 8 where sixteen hold half a vector each."""
    return 32 if binding.get_host_cpu_features().get("avx512f") else 8


def _emit_ones(program: Program) -> None:
    [address] = program.arguments
    program.floats(address, torch.float32).store(program.const(0), program.vector(1.0))


def compiled(emit: Callable[[Program], None], arguments: int) -> Kernel:
    """Compile what ``emit`` writes; the kernel takes its arguments and runs to the end on all of torch's threads."""
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), _SIGNATURE), "kernel")
    program = Program(function, arguments)
    emit(program)
    program.end()
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


@cache
def bits(value: float) -> int:
    """A float32 as an argument."""
    integer: int = struct.unpack("=i", struct.pack("=f", value))[0]
    return integer


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
    at.call(kernel, [given, ir.Constant(I64, 0), ir.Constant(I64, 1)])
    at.ret_void()
    _define_barrier(module, None)


def _member(module: ir.Module) -> tuple[ir.IRBuilder, ir.Value]:
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
