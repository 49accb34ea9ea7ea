"""Products of modules that read one input, behind modules that are called one by one.

The first that is called computes for all; the others take their part. That the input is the same is seen by the tensor
object. Needed for Hugging Face's modules alone: a flat forward calls the fused product itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lorapool.worker.native.linear import Product, fused_linear, packable

Products = Callable[[Tensor], list[Tensor]]  # of all modules that read one input
After = Callable[[Sequence[str], Tensor, list[Tensor]], None]


def products(
    modules: Mapping[str, nn.Module], fused_inputs: Sequence[Sequence[str]], after: After | None = None
) -> dict[str, Product]:
    """A function for each module's output [..., out_features], given its input [..., in_features].

    ``after`` is called with the paths, the input and the outputs of modules that were just computed; it may change the
    outputs in place.
    """
    pack = packable(list(modules.values()))
    known = {path for paths in fused_inputs for path in paths}
    made: dict[str, Product] = {}
    for paths in (*fused_inputs, *([path] for path in modules if path not in known)):
        compute = _computed(modules, paths, pack)
        made.update(_parts(paths, compute if after is None else _followed(paths, compute, after)))
    return made


class SharedInput:
    """The products of modules that read the same input, computed when the first of them is called."""

    def __init__(self, compute: Products) -> None:
        self._compute = compute
        self._input: Tensor | None = None
        self._parts: list[Tensor | None] = []

    def part(self, index: int) -> Product:
        """The product of the module at ``index``."""

        def product(x: Tensor) -> Tensor:
            if self._input is not x or self._parts[index] is None:
                self._input, self._parts = x, [*self._compute(x)]
            mine, self._parts[index] = self._parts[index], None
            if not any(part is not None for part in self._parts):
                self._input = None
            assert mine is not None
            return mine

        return product


def _parts(paths: Sequence[str], compute: Products) -> dict[str, Product]:
    if len(paths) == 1:
        return {paths[0]: lambda x: compute(x)[0]}
    shared = SharedInput(compute)
    return {path: shared.part(index) for index, path in enumerate(paths)}


def _followed(paths: Sequence[str], compute: Products, after: After) -> Products:
    def followed(x: Tensor) -> list[Tensor]:
        outs = compute(x)
        after(paths, x, outs)
        return outs

    return followed


def _computed(modules: Mapping[str, nn.Module], paths: Sequence[str], pack: bool) -> Products:
    group: list[Any] = [modules[path] for path in paths]
    if pack and all(isinstance(module, nn.Linear) for module in group):
        fused = fused_linear(modules, paths, pack=True)
        return lambda x: [*fused.split(fused.product(x))]
    forwards = [module.forward for module in group]
    return lambda x: [forward(x) for forward in forwards]
