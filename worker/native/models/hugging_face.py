"""Hugging Face's own modules as a forward, for models that the flat one does not know.

Their code is run as it is; adapters' parts are added behind every linear module and embedding, which are called without
a word of the step, so that here, and only here, the step waits on an attribute while the model runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from lorapool.worker.native.forward import Step
from lorapool.worker.native.lora import LoraSlots
from lorapool.worker.native.models.fused_inputs import products
from lorapool.worker.native.probe import Probe, linear_modules
from lorapool.worker.native.replacements import replacements


class HuggingFaceForward:
    """Implements Forward. Module names and weights stay as they are."""

    def __init__(self, model: Any, probe: Probe, lora: LoraSlots, embeddings: Sequence[str]) -> None:
        self._model, self._lora = model, lora
        self._step: Step | None = None
        head, modules = model.get_output_embeddings(), linear_modules(model)
        self._head = {path for path, module in modules.items() if module is head}
        self._replaced: dict[Any, Callable[..., Tensor]] = {
            modules[path]: product for path, product in products(modules, probe.fused_inputs, self._adapt).items()
        }
        self._replaced.update(replacements(model))
        for path in embeddings:
            table: Any = model.get_submodule(path)
            self._replaced[table] = self._embedded(path, table.forward)
        self._put()

    def __call__(self, step: Step) -> Tensor:
        """Logits [kept, vocab]."""
        self._step = step
        try:
            logits: Tensor = self._model(
                input_ids=step.ids[None],
                position_ids=step.positions[None],
                use_cache=False,
                logits_to_keep=step.kept,
                plan=step.attention,
            ).logits[0]
        finally:
            self._step = None
        return logits

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """Within it, the modules compute as transformers made them."""
        for module in self._replaced:
            del vars(module)["forward"]
        try:
            yield
        finally:
            self._put()

    def _put(self) -> None:
        for module, forward in self._replaced.items():
            module.forward = forward

    def _adapt(self, paths: Sequence[str], x: Tensor, outs: list[Tensor]) -> None:
        """Add the adapters' part to what modules that read ``x`` gave."""
        if self._step is None:
            return
        plan = self._step.head if paths[0] in self._head else self._step.lora
        if plan.products:
            flat = [out.view(-1, out.shape[-1]) for out in outs]
            self._lora.apply(paths, x.reshape(-1, x.shape[-1]), flat, plan)

    def _embedded(self, path: str, base: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def forward(ids: Tensor) -> Tensor:
            out = base(ids)
            if self._step is not None and self._step.lora.segments:
                self._lora.embed(path, ids.reshape(-1), out.view(-1, out.shape[-1]), self._step.lora)
            return out

        return forward
