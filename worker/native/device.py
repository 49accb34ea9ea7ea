"""Which device and dtype ``auto`` means on this machine, and whether a named one is there.

The CPU computes in bfloat16 only where it has instructions for it; elsewhere float32 is faster and exact.
"""

from __future__ import annotations

from pathlib import Path

import torch

from lorapool.shared.errors import BaseModelError
from lorapool.worker.adapters.checkpoint import ModelSpec


def choose_device(wanted: str) -> str:
    """``auto`` | ``cpu`` | ``cuda`` | ``cuda:<n>`` → a torch device. Raises BaseModelError if it is not there."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        return "cuda:0" if count else "cpu"
    if wanted == "cpu":
        return wanted
    index = int(wanted.partition(":")[2] or 0)
    if index >= count:
        raise BaseModelError(
            f"device {wanted!r} was asked for, but torch {torch.__version__} sees {count} CUDA devices here; "
            "use --device cpu, or a CUDA build of torch and a driver"
        )
    return f"cuda:{index}"


def choose_dtype(wanted: str, device: str) -> str:
    """``auto`` | name → float32, bfloat16 or float16."""
    if wanted != "auto":
        return wanted
    if device.startswith("cuda"):
        index = int(device.partition(":")[2] or 0)
        return "bfloat16" if torch.cuda.get_device_capability(index) >= (8, 0) else "float16"
    return "bfloat16" if _cpu_has_bfloat16() else "float32"


def describe(device: str) -> str:
    """The device in words: a GPU's name and memory, or the CPU and its threads."""
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return f"CPU, {torch.get_num_threads()} threads"


def _cpu_has_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def default_kv_bytes(device: str, weight_bytes: int, utilization: float) -> int:
    """Memory for keys and values when none is named: what the weights leave of a GPU's share; 2 GiB on a CPU.

    An eighth of the GPU stays free for activations and adapters. Raises BaseModelError if nothing is left.
    """
    if not device.startswith("cuda"):
        return 2 * 2**30
    total = int(torch.cuda.get_device_properties(device).total_memory)
    left = round(total * (utilization - 0.125)) - weight_bytes
    if left < 2**20:
        raise BaseModelError(
            f"{device} has {total / 2**30:.1f} GiB: {weight_bytes / 2**30:.1f} GiB of weights leave no room for keys "
            "and values; raise --gpu-memory-utilization or use a larger GPU"
        )
    return left


def slot_bytes(spec: ModelSpec, max_rank: int, device: str) -> int:
    """What one adapter slot takes at most: factors of ``max_rank`` on every linear module and embedding."""
    item_bytes = 2 if device.startswith("cuda") else 4
    return sum((module.in_features + module.out_features) * max_rank * item_bytes for module in spec.modules.values())
