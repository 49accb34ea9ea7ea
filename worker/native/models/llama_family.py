"""Which models the flat forward knows: the Llama family, by allow-list.

Class, every field of the config, every module and every parameter must be known; whatever else a checkpoint says sends
it to Hugging Face's own modules, with the reason. The self-check then compares what is left with those modules.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PretrainedConfig

_KINDS = ("llama", "qwen2", "qwen3", "mistral", "smollm3")
_ROPES = ("default", "linear", "llama3", "yarn")  # angles that depend on the position alone

_SHAPES = frozenset(
    {
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim", "max_position_embeddings",
    }
)  # fmt: skip
_SEEN_IN_MODULES = frozenset({"attention_bias", "mlp_bias", "rms_norm_eps", "tie_word_embeddings"})
_SEEN_BY_THE_PROBE = frozenset({"layer_types", "sliding_window", "use_sliding_window", "max_window_layers"})
_SEEN_IN_LAYERS = frozenset({"no_rope_layers", "no_rope_layer_interval"})
_WITHOUT_EFFECT = frozenset(
    {
        "attention_dropout", "initializer_range", "use_cache", "bos_token_id", "eos_token_id", "pad_token_id",
        "unk_token_id", "is_llama_config", "transformers.js_config",
    }
)  # fmt: skip
_ONLY: dict[str, tuple[object, ...]] = {
    "hidden_act": ("silu",),
    "pretraining_tp": (None, 1),
    "rope_interleaved": (None, False),
}
_ROPE_FIELDS = frozenset(
    {
        "rope_type", "rope_theta", "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings",
        "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate",
    }
)  # fmt: skip

_LAYER = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}
_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
_MLP = {"gate_proj", "up_proj", "down_proj", "act_fn"}


def unknown(model: Any) -> str | None:
    """What the flat forward does not know of a model; None if it knows all."""
    kind = model.config.model_type
    module = f"transformers.models.{kind}.modeling_{kind}"
    if kind not in _KINDS or type(model).__module__ != module or not type(model).__name__.endswith("ForCausalLM"):
        return f"class {type(model).__name__}"
    return _unknown_field(model.config) or _unknown_rope(model.config) or _unknown_module(model)


def _unknown_field(config: Any) -> str | None:
    fields = config.to_dict()
    known = _SHAPES | _SEEN_IN_MODULES | _SEEN_BY_THE_PROBE | _SEEN_IN_LAYERS | _WITHOUT_EFFECT
    known |= PretrainedConfig().to_dict().keys() | {"rope_parameters"}
    for name, value in fields.items():
        if name in _ONLY and value in _ONLY[name]:
            continue
        if name not in known:
            return f"config field {name}: {value!r}"
    return None


def _unknown_rope(config: Any) -> str | None:
    rope = config.rope_parameters or {}
    if rope.get("rope_type") not in _ROPES:
        return f"rope type {rope.get('rope_type')!r}"
    extra = rope.keys() - _ROPE_FIELDS
    return f"rope field {min(extra)}" if extra else None


def _unknown_module(model: Any) -> str | None:
    if _names(model) != {"model", "lm_head"} or _names(model.model) != {"embed_tokens", "layers", "norm", "rotary_emb"}:
        return "modules beside layers, norm and head"
    if type(model.model.embed_tokens) is not nn.Embedding or type(model.lm_head) is not nn.Linear:
        return "an embedding or head of another class"
    return next((what for layer in model.model.layers if (what := _unknown_part(layer)) is not None), None)


def _unknown_part(layer: Any) -> str | None:
    attention = _names(layer) == _LAYER and _names(layer.self_attn)
    if not attention or attention - {"q_norm", "k_norm"} != _ATTENTION or _names(layer.mlp) != _MLP:
        return f"modules of {type(layer).__name__}"
    if len(attention & {"q_norm", "k_norm"}) == 1:
        return "a norm of queries or keys alone"
    parts = {name: part for block in (layer, layer.self_attn, layer.mlp) for name, part in block.named_children()}
    for name, part in parts.items():
        if name.endswith("_proj") and type(part) is not nn.Linear:
            return f"{name} of class {type(part).__name__}"
        if "norm" in name and (not hasattr(part, "variance_epsilon") or len(list(part.parameters())) != 1):
            return f"{name} of class {type(part).__name__}"
    return None


def _names(module: nn.Module) -> set[str]:
    return {name for name, _ in module.named_children()}
