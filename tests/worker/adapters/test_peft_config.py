"""The allow-list over PEFT's LoraConfig: every field is judged, and judged as PEFT means it."""

from __future__ import annotations

import dataclasses
import time

import pytest
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key

from lorapool.shared.errors import CheckpointError
from lorapool.worker.adapters.peft_config import INERT, NEUTRAL, SERVED, PeftConfig

REFUSED = {
    "bias": "all",
    "modules_to_save": ["lm_head"],
    "megatron_config": {},
    "trainable_token_indices": [1, 2],
    "alora_invocation_tokens": [5],
    "use_qalora": True,
    "monteclora_config": {"num_samples": 8},
    "layer_replication": [[0, 2], [1, 2]],
    "target_parameters": ["experts.gate_up_proj"],
    "use_bdlora": {"x": 1},
    "arrow_config": {"top_k": 2},
    "kasa_config": {"beta": 1e-4},
    "ensure_weight_tying": True,
}


def test_every_field_of_the_installed_peft_is_judged():
    """A PEFT with a new field breaks this test, not the answers."""
    fields = {field.name for field in dataclasses.fields(LoraConfig)}
    assert fields == SERVED | INERT | NEUTRAL.keys()
    assert len(SERVED) + len(INERT) + len(NEUTRAL) == len(fields)


def test_the_default_config_is_served():
    """What PEFT writes when nothing is asked for passes."""
    assert PeftConfig.of(LoraConfig().to_dict()).scaling("any.module") == 1


def test_each_field_that_changes_the_computation_has_a_refused_value_here():
    """No neutral-only field goes untested."""
    assert NEUTRAL.keys() == REFUSED.keys()


@pytest.mark.parametrize("name", REFUSED)
def test_a_value_that_is_not_served_is_refused_by_name(name):
    """The message begins with the field and shows the value."""
    with pytest.raises(CheckpointError, match=rf"^{name} = "):
        PeftConfig.of({**LoraConfig().to_dict(), name: REFUSED[name]})


def test_an_unknown_field_is_refused_by_name():
    """A field of a newer PEFT may change what the adapter computes."""
    with pytest.raises(CheckpointError, match="unknown field 'use_magic'"):
        PeftConfig.of({"use_magic": False})


@pytest.mark.parametrize("value", ["pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga"])
def test_starts_that_change_the_base_are_refused_with_the_way_out(value):
    """Unconverted, such an adapter fits a base that nobody has."""
    with pytest.raises(CheckpointError, match="path_initial_model_for_weight_conversion"):
        PeftConfig.of({"init_lora_weights": value})


@pytest.mark.parametrize(
    "fields",
    [
        {"r": 0},
        {"r": 2.5},
        {"r": True},
        {"lora_alpha": "8"},
        {"rank_pattern": ["q"]},
        {"rank_pattern": {"q": -1}},
        {"use_dora": "yes"},
        {"target_modules": [1]},
        {"layers_to_transform": ["x"]},
        {"base_model_name_or_path": 3},
        {"peft_type": "IA3"},
        {"alpha_pattern": {"(": 1}},
    ],
)
def test_nonsense_is_refused_in_words(fields):
    """A value of the wrong kind names its field."""
    with pytest.raises(CheckpointError, match=next(iter(fields))):
        PeftConfig.of(fields)


PATTERNS = ["q_proj", "self_attn.q_proj", "^model.layers.0.self_attn.q_proj", r"layers\.(0|2)\..*proj", "o_proj"]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("path", [f"model.layers.{n}.self_attn.{m}_proj" for n in (0, 1, 10) for m in "qo"])
def test_patterns_match_as_in_peft(pattern, path):
    """The rank of a module is that which PEFT gives it."""
    expected = {pattern: 16}.get(get_pattern_key([pattern], path), 8)
    assert expected == PeftConfig.of({"rank_pattern": {pattern: 16}}).rank(path)


def test_an_expression_that_would_backtrack_for_ever_is_matched_in_a_moment():
    """A hostile pattern must not hang whoever reads it: once it froze every worker of a pool."""
    begun = time.monotonic()
    config = PeftConfig.of({"rank_pattern": {".?" * 40 + "Q": 4}, "alpha_pattern": {"(a+)+Q": 1}})
    assert config.scaling("a" * 200) == 1
    assert time.monotonic() - begun < 30  # backtracking, it would take years


@pytest.mark.parametrize("expression", [r"(.)\1", "(?=a)a", "x" * 600])
def test_an_expression_that_cannot_be_matched_in_linear_time_is_refused(expression):
    """By the field's name."""
    with pytest.raises(CheckpointError, match=r"^alpha_pattern: the expression"):
        PeftConfig.of({"alpha_pattern": {expression: 1}})


CHOICES = [
    {"target_modules": ["q_proj"]},
    {"target_modules": ["model.layers.1.self_attn.q_proj", "o_proj"], "layers_to_transform": 0},
    {"target_modules": ["q_proj", "o_proj"], "layers_to_transform": [1, 10]},
    {"target_modules": ["q_proj", "o_proj"], "exclude_modules": ["o_proj"]},
    {"target_modules": ["roj"]},
]


@pytest.mark.parametrize("fields", CHOICES)
@pytest.mark.parametrize("path", [f"model.layers.{n}.self_attn.{m}_proj" for n in (0, 1, 10) for m in "qo"])
def test_modules_are_chosen_as_in_peft(fields, path):
    """Lists of names, exclusions and layer numbers choose what they choose there."""
    expected = check_target_module_exists(LoraConfig(**fields), path)
    assert bool(expected) == PeftConfig.of(fields).targets(path)
