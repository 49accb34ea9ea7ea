"""The Llama family's forward, flat: llama, qwen2, qwen3, mistral and smollm3 on one page.

Everything that a step brings is an argument; weights are those of the Hugging Face model, read once at load. Rows are
[rows, width] throughout: neither batch nor sequence is a dimension. llama_family says which models this may be used
for, and the self-check whether it gives what their own modules give.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor
from torch.nn.functional import embedding

from lorapool.worker.native.forward import Step
from lorapool.worker.native.linear import FusedLinear, fused_linear, packable
from lorapool.worker.native.lora import LoraPlan, LoraSlots
from lorapool.worker.native.pointwise import Norm, gated, rotate_
from lorapool.worker.native.probe import AttentionLayer, Probe, linear_modules

_EMBEDDING = "model.embed_tokens"


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One decoder layer. ``query_norm`` and ``key_norm`` are there for qwen3; ``rotates`` is False in smollm3's layers
    without positions."""

    attention: AttentionLayer
    before_attention: Norm
    qkv: FusedLinear
    query_norm: Norm | None
    key_norm: Norm | None
    rotates: bool
    output: FusedLinear
    before_mlp: Norm
    gate_up: FusedLinear
    down: FusedLinear


class LlamaForward:
    """Implements Forward."""

    def __init__(self, model: Any, probe: Probe, lora: LoraSlots) -> None:
        self._lora = lora
        self._table: Tensor = model.model.embed_tokens.weight.data
        modules = linear_modules(model)
        fuse = partial(fused_linear, modules, pack=packable(list(modules.values())))
        self._layers = [_layer(model, index, probe.layers[index], fuse) for index in range(len(probe.layers))]
        self._last_norm = Norm.of(model.model.norm)
        self._head = fuse(["lm_head"])
        self._angles = model.model.rotary_emb

    def __call__(self, step: Step) -> Tensor:
        """Logits [kept, vocab]."""
        residual = embedding(step.ids, self._table)
        if step.lora.segments:
            self._lora.embed(_EMBEDDING, step.ids, residual, step.lora)
        cos, sin = self._angles(residual, step.positions[None])  # transformers' own code, once a step
        part: Tensor | None = None
        for index, layer in enumerate(self._layers):
            norm = layer.before_attention
            x = norm(residual) if part is None else norm.after_adding(residual, part)
            seen = self._attend(index, layer, x, (cos[0], sin[0]), step)
            x = layer.before_mlp.after_adding(residual, self._product(layer.output, seen, step.lora))
            part = self._product(layer.down, gated(self._product(layer.gate_up, x, step.lora)), step.lora)
        assert part is not None, "a model without layers"
        kept, last = residual.index_select(0, step.kept), part.index_select(0, step.kept)
        return self._product(self._head, self._last_norm.after_adding(kept, last), step.head)

    def set_aside(self) -> AbstractContextManager[None]:
        """The modules were never changed."""
        return nullcontext()

    def _attend(self, index: int, layer: Layer, x: Tensor, angles: tuple[Tensor, Tensor], step: Step) -> Tensor:
        """Attention's output [rows, query heads * dim]."""
        qkv = self._product(layer.qkv, x, step.lora)
        query, key, value = layer.qkv.split(qkv)
        shape, rows = layer.attention.shape, len(x)
        query, key = query.view(rows, -1, shape.key_dim), key.view(rows, -1, shape.key_dim)
        if layer.query_norm is not None and layer.key_norm is not None:
            query, key = layer.query_norm(query), layer.key_norm(key)
        if layer.rotates:
            rotate_(query, *angles)
            rotate_(key, *angles)
        value = value.view(rows, -1, shape.value_dim)
        scale, window = layer.attention.scale, layer.attention.window
        return step.attention.attend(index, query, key, value, scale, window, None).view(rows, -1)

    def _product(self, linear: FusedLinear, x: Tensor, plan: LoraPlan) -> Tensor:
        """x·W of modules that read ``x``, side by side, and what the adapters add to each."""
        out = linear.product(x)
        if plan.products:
            self._lora.apply(linear.paths, x, linear.split(out), plan)
        return out


def _layer(model: Any, index: int, attention: AttentionLayer, fuse: Callable[[list[str]], FusedLinear]) -> Layer:
    layer, path = model.model.layers[index], f"model.layers.{index}"
    own = layer.self_attn
    return Layer(
        attention=attention,
        before_attention=Norm.of(layer.input_layernorm),
        qkv=fuse([f"{path}.self_attn.{name}_proj" for name in "qkv"]),
        query_norm=Norm.of(own.q_norm) if hasattr(own, "q_norm") else None,
        key_norm=Norm.of(own.k_norm) if hasattr(own, "k_norm") else None,
        rotates=bool(getattr(own, "use_rope", True)),
        output=fuse([f"{path}.self_attn.o_proj"]),
        before_mlp=Norm.of(layer.post_attention_layernorm),
        gate_up=fuse([f"{path}.mlp.gate_proj", f"{path}.mlp.up_proj"]),
        down=fuse([f"{path}.mlp.down_proj"]),
    )
