"""The base model's own products, arranged for speed; every module keeps its name and its weight.

Linear modules that read the same input are computed together when the first of them is called; the others take their
part. On the CPU that is one product, its weights packed once into oneDNN's own layout (the same numbers; 15 to 45 %
faster at the row counts of decoding), which costs their bytes again: done while that is a small part of the memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_TYPICAL_ROWS = 64  # what the packed layout is tuned for
_PACKED_SHARE = 0.25  # of the machine's memory, at most, for packed copies

Product = Callable[[Tensor], Tensor]
Products = Callable[[Tensor], list[Tensor]]  # of all modules that read one input
After = Callable[[Sequence[str], Tensor, list[Tensor]], None]


def products(
    modules: Mapping[str, nn.Module], shared_inputs: Sequence[Sequence[str]], after: After | None = None
) -> dict[str, Product]:
    """A function for each module's output [..., out_features], given its input [..., in_features].

    ``after`` is called with the paths, the input and the outputs of modules that were just computed; it may change the
    outputs in place.
    """
    pack = _packable(list(modules.values()))
    known = {path for paths in shared_inputs for path in paths}
    made: dict[str, Product] = {}
    for paths in (*shared_inputs, *([path] for path in modules if path not in known)):
        group = [modules[path] for path in paths]
        compute = _fused(group) if pack and all(isinstance(module, nn.Linear) for module in group) else _each(group)
        made.update(_parts(paths, compute if after is None else _followed(paths, compute, after)))
    return made


class Shared:
    """The products of modules that read the same input, computed when the first of them is called; the input is
    recognised as the same tensor object."""

    def __init__(self, compute: Products) -> None:
        self._compute = compute
        self._input: Tensor | None = None
        self._parts: list[Tensor | None] = []

    def part(self, index: int) -> Product:
        """The product of the module at ``index``."""

        def product(x: Tensor) -> Tensor:
            if self._input is not x or self._parts[index] is None:
                self._input, self._parts = x, [*self._compute(x)]
            found, self._parts[index] = self._parts[index], None
            if not any(part is not None for part in self._parts):
                self._input = None
            assert found is not None
            return found

        return product


def _parts(paths: Sequence[str], compute: Products) -> dict[str, Product]:
    if len(paths) == 1:
        return {paths[0]: lambda x: compute(x)[0]}
    shared = Shared(compute)
    return {path: shared.part(index) for index, path in enumerate(paths)}


def _followed(paths: Sequence[str], compute: Products, after: After) -> Products:
    def followed(x: Tensor) -> list[Tensor]:
        outs = compute(x)
        after(paths, x, outs)
        return outs

    return followed


def _each(modules: Sequence[Any]) -> Products:
    forwards = [module.forward for module in modules]
    return lambda x: [forward(x) for forward in forwards]


def _fused(modules: Sequence[Any]) -> Products:
    """One packed product for all of them."""
    weight = torch.cat([module.weight.data for module in modules])
    # What torch.compile itself puts in for a frozen Linear on the CPU; private, so its presence is checked first.
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, _TYPICAL_ROWS)  # noqa: SLF001
    biases = [module.bias for module in modules]
    bias = None if all(bias is None for bias in biases) else torch.cat([_bias(module) for module in modules])
    sizes = [module.out_features for module in modules]

    def fused(x: Tensor) -> list[Tensor]:
        out = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")  # noqa: SLF001
        return [out] if len(sizes) == 1 else list(out.split(sizes, dim=-1))

    return fused


def _bias(module: Any) -> Tensor:
    found: Tensor = module.weight.new_zeros(module.out_features) if module.bias is None else module.bias.data
    return found


def _packable(modules: Sequence[Any]) -> bool:
    weights = [module.weight for module in modules]
    known = all(hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
    if not known or any(weight.device.type != "cpu" for weight in weights):
        return False
    if not {weight.dtype for weight in weights} <= _packed_dtypes():
        return False
    memory: int = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    packed: int = sum(weight.nbytes for weight in weights)
    return packed <= _PACKED_SHARE * memory


def _packed_dtypes() -> set[torch.dtype]:
    """bfloat16 only where oneDNN has products for it: it asks for AVX-512 or AVX-NE-CONVERT, and raises without."""
    dtypes = {torch.float32}
    if hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported") and torch.ops.mkldnn._is_mkldnn_bf16_supported():  # noqa: SLF001
        dtypes.add(torch.bfloat16)
    return dtypes
