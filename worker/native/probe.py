"""What one token through the model shows of it: the shape of each attention layer, and who reads the same input.

Refuses a model whose attention does not pass transformers' attention interface, or whose windows are not those that its
config names. Knows neither adapters nor the KV cache's rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lorapool.shared.errors import BaseModelError
from lorapool.worker.native.kv_cache import LayerShape


@dataclass(frozen=True, slots=True)
class AttentionLayer:
    """One layer's heads, the factor of its scores, and the window it looks through, in tokens."""

    shape: LayerShape
    scale: float
    window: int | None


@dataclass(frozen=True, slots=True)
class Probe:
    """``fused_inputs``: the linear modules, by path, in groups that read the very same input."""

    layers: tuple[AttentionLayer, ...]
    fused_inputs: tuple[tuple[str, ...], ...]


def linear_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that compute x·W, by path."""
    return {path: module for path, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}


@torch.inference_mode()
def probe(model: Any) -> Probe:
    """Run one token. Raises BaseModelError if the model cannot be served."""
    listener, inputs = _Listener(), []

    def record(path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, args: inputs.append((path, args[0]))

    hooks = [module.register_forward_pre_hook(record(path)) for path, module in linear_modules(model).items()]
    try:
        model(torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False, plan=listener)
    finally:
        for hook in hooks:
            hook.remove()
    config = model.config.get_text_config()
    expected = config.num_hidden_layers
    if sorted(listener.layers) != list(range(expected)):
        raise BaseModelError(
            f"{type(model).__name__}: {len(listener.layers)} of {expected} layers use transformers' attention "
            "interface: not served"
        )
    layers = tuple(listener.layers[index] for index in range(expected))
    check_windows(config, {index: layer.window for index, layer in enumerate(layers)})
    groups: dict[int, list[str]] = {}
    for path, x in inputs:
        groups.setdefault(id(x), []).append(path)
    return Probe(layers, tuple(tuple(paths) for paths in groups.values()))


def check_windows(config: Any, windows: Mapping[int, int | None]) -> None:
    """Raise BaseModelError unless each layer gave the attention function the window that the config gives it."""
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * len(windows)
    own = getattr(config, "sliding_window", None)
    if unknown := set(kinds) - {"full_attention", "sliding_attention"}:
        raise BaseModelError(f"layers of type {'/'.join(sorted(unknown))} are not served: only full and sliding ones")
    for layer, kind in enumerate(kinds):
        expected = own if kind == "sliding_attention" else None
        if windows[layer] != expected:
            raise BaseModelError(
                f"layer {layer} is {kind} with a window of {expected} by config.json, and asks for {windows[layer]}: "
                "not served"
            )


class _Listener:
    """Stands in for the AttentionPlan once."""

    def __init__(self) -> None:
        self.layers: dict[int, AttentionLayer] = {}

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None, _cap: Any
    ) -> Tensor:
        shape = LayerShape(key.shape[1], key.shape[2], value.shape[2])
        self.layers[layer] = AttentionLayer(shape, scale, window)
        return query.new_zeros(*query.shape[:2], value.shape[2])
