"""The base model's own products, arranged for speed; every module keeps its name and its weight.

Linear modules that read the same input are computed as one product when the first of them is called; the others take
their part of it. On the CPU the weights are packed once into oneDNN's own layout (the same numbers; 15 to 45 % faster
at the row counts of decoding), which costs their bytes again: done only while that is a small part of the memory.
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


def products(modules: Mapping[str, nn.Module], shared_inputs: Sequence[Sequence[str]]) -> dict[str, Product]:
    """A function for each module's output [..., out_features], given its input [..., in_features]."""
    pack = _packable(list(modules.values()))
    made: dict[str, Product] = {}
    for paths in shared_inputs:
        group = [(path, modules[path]) for path in paths]
        if pack and all(isinstance(module, nn.Linear) for _, module in group):
            made.update(_fused([path for path, _ in group], [module for _, module in group]))
        else:
            made.update({path: module.forward for path, module in group})
    return {path: made.get(path, module.forward) for path, module in modules.items()}


class Fused:
    """One product for modules that read the same input, which is recognised as the same tensor object."""

    def __init__(self, modules: Sequence[Any]) -> None:
        weight = torch.cat([module.weight.data for module in modules])
        # What torch.compile itself puts in for a frozen Linear on the CPU; private, so its presence is checked first.
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, _TYPICAL_ROWS)  # noqa: SLF001
        biases = [module.bias for module in modules]
        self._bias = None if all(bias is None for bias in biases) else torch.cat([_bias(module) for module in modules])
        self._sizes = [module.out_features for module in modules]
        self._input: Tensor | None = None
        self._parts: list[Tensor | None] = []

    def part(self, index: int) -> Product:
        """The product of the group's module at ``index``."""

        def product(x: Tensor) -> Tensor:
            if self._input is not x or self._parts[index] is None:
                out = torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")  # noqa: SLF001
                self._input, self._parts = x, list(out.split(self._sizes, dim=-1))
            found, self._parts[index] = self._parts[index], None
            if not any(part is not None for part in self._parts):
                self._input = None
            assert found is not None
            return found

        return product


def _fused(paths: Sequence[str], modules: Sequence[nn.Module]) -> dict[str, Product]:
    fused = Fused(modules)
    return {path: fused.part(index) for index, path in enumerate(paths)}


def _bias(module: Any) -> Tensor:
    found: Tensor = module.weight.new_zeros(module.out_features) if module.bias is None else module.bias.data
    return found


def _packable(modules: Sequence[Any]) -> bool:
    weights = [module.weight for module in modules]
    known = all(hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
    if not known or any(weight.device.type != "cpu" for weight in weights):
        return False
    if any(weight.dtype not in {torch.float32, torch.bfloat16} for weight in weights):
        return False
    memory: int = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    packed: int = sum(weight.nbytes for weight in weights)
    return packed <= _PACKED_SHARE * memory
