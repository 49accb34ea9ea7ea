"""What an adapter_config.json asks for, field by field, and whether this worker serves it.

An allow-list over every field of PEFT's ``LoraConfig``: a field is served, or has no part in inference, or must be at
its neutral value, or the adapter is refused by the field's name. A field unknown here is refused too, so that a newer
PEFT cannot change answers silently. Knows no tensors and no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lorapool.shared.errors import CheckpointError
from lorapool.worker.adapters.expression import Expressions

SERVED = frozenset(
    {
        "peft_type",
        "base_model_name_or_path",
        "r",
        "lora_alpha",
        "use_rslora",
        "rank_pattern",
        "alpha_pattern",
        "use_dora",
        "lora_bias",
        "init_lora_weights",
        "fan_in_fan_out",
        "target_modules",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
    }
)
"""Read here or by checkpoint.py, or borne out by which tensors the file holds."""

INERT = frozenset(
    {
        "task_type",
        "auto_mapping",
        "peft_version",
        "revision",
        "inference_mode",
        "lora_dropout",
        "megatron_core",
        "qalora_group_size",
        "eva_config",
        "runtime_config",
        "loftq_config",
        "corda_config",
        "lora_ga_config",
        "velora_config",
    }
)
"""Matter in training or bookkeeping only: backward passes, initial values (judged by ``init_lora_weights``)."""

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "modules_to_save": (None, []),
    "megatron_config": (None,),
    "trainable_token_indices": (None, [], {}),
    "alora_invocation_tokens": (None, []),
    "use_qalora": (False, None),
    "monteclora_config": (None,),
    "layer_replication": (None, []),
    "target_parameters": (None, []),
    "use_bdlora": (None, False),
    "arrow_config": (None,),
    "kasa_config": (None,),
    "ensure_weight_tying": (False, None),
}
"""Change the computation; served only at these values."""

KEEPS_BASE = frozenset({"gaussian", "eva", "orthogonal", "mica", "true", "false"})
"""Values of ``init_lora_weights`` that leave the base weights alone. The others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA)
change them, and such an adapter fits the changed base only, until it is converted when saved."""


MAX_RANK = 1 << 20  # far beyond any layer; a number of a thousand digits is none that can be reckoned with


@dataclass(frozen=True)
class PeftConfig:
    """The fields that are served, checked. ``scaling`` and ``rank`` follow ``LoraLayer.update_layer`` of PEFT."""

    r: int
    alpha: float
    use_rslora: bool
    use_dora: bool
    lora_bias: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    base_model: str | None
    targeted: tuple[str, ...] | None  # None: chosen by an expression or by PEFT's defaults
    excluded: tuple[str, ...] | None
    layers: frozenset[int] | None  # None: all
    _ranks: Expressions = field(init=False, repr=False, compare=False)
    _alphas: Expressions = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ranks", Expressions("rank_pattern", self.rank_pattern))
        object.__setattr__(self, "_alphas", Expressions("alpha_pattern", self.alpha_pattern))

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> PeftConfig:
        """Check the parsed JSON. Raises CheckpointError naming the field, its value and what is served."""
        check_fields(fields)
        return cls(
            r=_rank("r", fields.get("r", 8)),
            alpha=_number("lora_alpha", fields.get("lora_alpha", 8)),
            use_rslora=_flag(fields, "use_rslora"),
            use_dora=_flag(fields, "use_dora"),
            lora_bias=_flag(fields, "lora_bias"),
            rank_pattern={k: _rank(f"rank_pattern[{k}]", v) for k, v in _pattern(fields, "rank_pattern").items()},
            alpha_pattern={k: _number(f"alpha_pattern[{k}]", v) for k, v in _pattern(fields, "alpha_pattern").items()},
            base_model=_base_model(fields.get("base_model_name_or_path")),
            targeted=_names(fields, "target_modules"),
            excluded=_names(fields, "exclude_modules"),
            layers=_layers(fields),
        )

    def check_effort(self, modules: int) -> None:
        """Raises CheckpointError where matching all patterns with so many modules would take too long."""
        for expressions in (self._ranks, self._alphas):
            expressions.check_effort(modules)

    def rank(self, path: str) -> int:
        """Rank of the module at ``path``, as configured."""
        key = self._ranks.first(path)
        return self.r if key is None else self.rank_pattern[key]

    def targets(self, path: str) -> bool:
        """Whether PEFT would adapt the module at ``path``, by its name alone; expressions from outside are not run."""
        if self.excluded is not None and _is_one_of(path, self.excluded):
            return False
        if self.targeted is None or path in self.targeted or self.layers is None:
            return self.targeted is None or _is_one_of(path, self.targeted)
        layer = re.match(r".*?\.[^.]*\.(\d+)\.", path)
        return _is_one_of(path, self.targeted) and layer is not None and int(layer[1]) in self.layers

    def scaling(self, path: str) -> float:
        """alpha / r, or alpha / sqrt(r) for rsLoRA (arXiv 2312.03732), with the module's own alpha and rank."""
        key = self._alphas.first(path)
        alpha = self.alpha if key is None else self.alpha_pattern[key]
        rank = self.rank(path)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank


def check_fields(fields: Mapping[str, Any]) -> None:
    """Refuse any field that is unknown or not at a value served."""
    if fields.get("peft_type", "LORA") != "LORA":
        raise CheckpointError(f"peft_type is {fields['peft_type']!r}: only 'LORA' is served")
    for name, value in fields.items():
        if name in NEUTRAL and value not in NEUTRAL[name]:
            raise CheckpointError(f"{name} = {_short(value)} is not served (it must be {NEUTRAL[name][0]!r})")
        if name not in SERVED | INERT and name not in NEUTRAL:
            raise CheckpointError(f"unknown field {name!r} = {_short(value)}: it may change what the adapter computes")
    _check_init(fields.get("init_lora_weights", True))


def _check_init(value: object) -> None:
    if str(value).casefold() not in KEEPS_BASE:
        raise CheckpointError(
            f"init_lora_weights = {_short(value)} changes the base weights; convert the adapter to plain LoRA when "
            f"saving (PEFT: save_pretrained(path_initial_model_for_weight_conversion=...))"
        )


def _is_one_of(path: str, names: Iterable[str]) -> bool:
    return any(path == name or path.endswith(f".{name}") for name in names)


def _names(fields: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    value = fields.get(name)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if value is not None and not isinstance(value, str):
        raise CheckpointError(f"{name} = {_short(value)}: expected a list of module names, or an expression")
    return None


def _layers(fields: Mapping[str, Any]) -> frozenset[int] | None:
    """The layers chosen by number; None for all, and where ``layers_pattern`` says what a layer is called."""
    value = fields.get("layers_to_transform")
    numbers = value if isinstance(value, list) else [] if value is None else [value]
    if any(type(number) is not int for number in numbers):
        raise CheckpointError(f"layers_to_transform = {_short(value)}: expected layer numbers")
    return frozenset(numbers) if numbers and not fields.get("layers_pattern") else None


def _pattern(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    patterns = fields.get(name) or {}
    if not isinstance(patterns, dict):
        raise CheckpointError(f"{name} must be an object, found {type(patterns).__name__}")
    return patterns


def _rank(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_RANK:
        raise CheckpointError(f"{name} = {_short(value)}: expected a whole number, 1 to {MAX_RANK:,}")
    return value


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:
        raise CheckpointError(f"{name} = {_short(value)}: expected a finite number")
    try:
        return float(value)
    except OverflowError:
        raise CheckpointError(f"{name} = {_short(value)}: larger than any float") from None


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name)
    if value not in (True, False, None):
        raise CheckpointError(f"{name} = {_short(value)}: expected true or false")
    return bool(value)


def _base_model(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise CheckpointError(f"base_model_name_or_path = {_short(value)}: expected a string")
    return value or None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
