"""The base model's own products, arranged for speed; every module keeps its name and its weight.

Linear modules that read the same input are one product. On the CPU its weights are packed once: for our own kernel
where that serves, else into oneDNN's own layout (the same numbers; 15 to 45 % faster at the row counts of decoding).
That costs their bytes again: done while it is a small part of the memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lorapool.worker.kernels import matmul as matmul_kernel

_TYPICAL_ROWS = 64  # what the packed layout is tuned for
_PACKED_SHARE = 0.25  # of the machine's memory, at most, for packed copies

Product = Callable[[Tensor], Tensor]  # [..., in_features] → [..., out_features]


@dataclass(frozen=True, slots=True, eq=False)
class FusedLinear:
    """Linear modules that read one input: [..., in] → [..., all their outputs side by side]."""

    paths: tuple[str, ...]
    sizes: tuple[int, ...]  # of their outputs
    product: Product

    def split(self, out: Tensor) -> Sequence[Tensor]:
        """Each module's part of the outputs, as views."""
        return (out,) if len(self.sizes) == 1 else out.split_with_sizes(self.sizes, dim=-1)


def fused_linear(modules: Mapping[str, nn.Module], paths: Sequence[str], *, pack: bool) -> FusedLinear:
    """The product of the linear modules at these paths; packed, where ``packable`` says that the model's may be."""
    group: list[Any] = [modules[path] for path in paths]
    product = _packed(group) if pack else _side_by_side(group)
    return FusedLinear(tuple(paths), tuple(module.out_features for module in group), product)


def packable(modules: Sequence[Any]) -> bool:
    """Whether all of these can have packed copies of their weights, in memory and by what oneDNN serves here."""
    weights = [module.weight for module in modules]
    known = all(hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
    if not known or any(weight.device.type != "cpu" for weight in weights):
        return False
    if not {weight.dtype for weight in weights} <= _packed_dtypes():
        return False
    memory: int = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    packed: int = sum(weight.nbytes for weight in weights)
    return packed <= _PACKED_SHARE * memory


def _packed(modules: Sequence[Any]) -> Product:
    weight = torch.cat([module.weight.data for module in modules])
    biases = [module.bias for module in modules]
    bias = None if all(bias is None for bias in biases) else torch.cat([_bias(module) for module in modules])
    if matmul_kernel.serves(weight):
        offset = weight.new_zeros(len(weight)) if bias is None else bias
        return partial(matmul_kernel.matmul, panels=matmul_kernel.packed(weight), bias=offset)
    # What torch.compile itself puts in for a frozen Linear on the CPU; private, so its presence is checked first.
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, _TYPICAL_ROWS)  # noqa: SLF001
    multiply = torch.ops.mkldnn._linear_pointwise.default  # noqa: SLF001
    return lambda x: multiply(x, packed, bias, "none", [], "")


def _side_by_side(modules: Sequence[Any]) -> Product:
    """Each module's own product, its weight where it lies."""
    own = [type(module).forward.__get__(module) for module in modules]
    return own[0] if len(own) == 1 else lambda x: torch.cat([product(x) for product in own], dim=-1)


def _bias(module: Any) -> Tensor:
    bias: Tensor = module.weight.new_zeros(module.out_features) if module.bias is None else module.bias.data
    return bias


def _packed_dtypes() -> set[torch.dtype]:
    """bfloat16 only where oneDNN has products for it: it asks for AVX-512 or AVX-NE-CONVERT, and raises without."""
    dtypes = {torch.float32}
    if hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported") and torch.ops.mkldnn._is_mkldnn_bf16_supported():  # noqa: SLF001
        dtypes.add(torch.bfloat16)
    return dtypes
