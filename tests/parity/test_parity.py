"""Random adapters of every served format, on random small models of many architectures, in mixed batches: PEFT's.

Hypothesis chooses; LORAPOOL_PARITY_EXAMPLES says how often (`make parity`), LORAPOOL_PARITY_SEED repeats a run.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from lorapool.shared.job import BASE_REF
from tests.parity.bench import Bench, Job, compare, runner_of
from tests.parity.conftest import EXAMPLES, SEED
from tests.parity.verdict import MEAN_BOUND, MOST_EXCUSED, Tally
from tests.parity.worlds import (
    ARCHITECTURES,
    VOCABULARY,
    WINDOW,
    Recipe,
    adaptable,
    base_model,
    embeddings,
    make_adapter,
    oracle_logits,
    plain,
)

RANKS = st.one_of(st.integers(1, 33), st.sampled_from([64, 99, 128, 255, 256]))
ENDS = {"embed_tokens", "lm_head", "wte", "wpe"}


@st.composite
def recipes(draw: st.DrawFn, name: str) -> Recipe:
    """Any served adapter of that architecture."""
    kind = draw(st.sampled_from(["lora", "lora", "dora", "bias"]))
    names = [part for part in adaptable(name) if kind != "bias" or part not in embeddings(name)]
    targets = draw(st.lists(st.sampled_from(names), unique=True, min_size=1, max_size=4))
    rslora, rank = draw(st.booleans()), draw(RANKS)
    alpha = draw(st.sampled_from([0.5, 1.0, 1.7])) * (math.sqrt(rank) if rslora else rank)
    config: dict[str, Any] = {
        "r": rank,
        "lora_alpha": alpha,
        "use_rslora": rslora,
        "use_dora": kind == "dora",
        "lora_bias": kind == "bias",
        "target_modules": targets,
        "rank_pattern": draw(st.dictionaries(st.sampled_from(targets), RANKS, max_size=2)),
        "alpha_pattern": draw(st.dictionaries(st.sampled_from(targets), st.sampled_from([1, 3.5, 8]), max_size=2)),
        "fan_in_fan_out": name == "GPT2Config",
    }
    if not ENDS & set(targets) and draw(st.booleans()):
        config["layers_to_transform"] = [draw(st.integers(0, 1))]
    return Recipe(config, draw(st.integers(0, 2**31)))


@st.composite
def jobs(draw: st.DrawFn, adapters: int) -> list[Job]:
    """Rows of all adapters and the base model, ragged; every third samples."""
    refs = draw(st.lists(st.integers(-1, adapters - 1), min_size=2, max_size=7))
    return [
        Job(
            BASE_REF if ref < 0 else f"a{ref}@1",
            tuple(draw(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=40))),
            draw(st.integers(1, 10)),
            temperature=draw(st.sampled_from([0.0, 0.0, 0.7, 1.3])),
            top_k=draw(st.sampled_from([0, 0, 5])),
            top_p=draw(st.sampled_from([1.0, 1.0, 0.8])),
            seed=draw(st.integers(0, 2**63)),
        )
        for ref in refs
    ]


@st.composite
def cases(draw: st.DrawFn, name: str) -> tuple[list[Recipe], list[Job], int]:
    made = draw(st.lists(recipes(name), min_size=1, max_size=4))
    return made, draw(jobs(len(made))), draw(st.sampled_from([5, 16, 1000]))


def often(share: float = 1.0) -> Any:
    """Hypothesis' settings for one architecture. Shrinking would take minutes; the seed repeats a case as it was."""
    return settings(
        max_examples=max(1, round(EXAMPLES * share)),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def check(name: str, dtype: torch.dtype, case: tuple[list[Recipe], list[Job], int], tally: Tally) -> None:
    """One mixed batch; four adapters share three slots."""
    made, rows, prefill_tokens = case
    model = plain(name, SEED, dtype)
    with tempfile.TemporaryDirectory() as folder:
        oracles: dict[str, Any] = {BASE_REF: model}
        folders = {f"a{index}@1": Path(folder, str(index)) for index in range(len(made))}
        for (ref, where), recipe in zip(folders.items(), made, strict=True):
            oracles[ref] = make_adapter(where, model, recipe)
        bench = Bench(runner_of(name, SEED, dtype), folders, prefill_tokens=prefill_tokens)
        compare(bench, rows, oracles, tally)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_any_mix_of_adapters_is_peft_in_float32(name: str, tally: Tally) -> None:
    """Greedy and sampled tokens, and every logit they were chosen by, equal PEFT's in float64 (within 1e-4)."""

    @seed(SEED)
    @often()
    @given(cases(name))
    def run(case: tuple[list[Recipe], list[Job], int]) -> None:
        check(name, torch.float32, case, tally)

    run()
    assert tally.positions > 0
    assert tally.excused <= MOST_EXCUSED * max(tally.positions, 100)


@pytest.mark.parametrize("name", ["LlamaConfig", "GPT2Config", "Gemma2Config"])
def test_any_mix_of_adapters_is_near_peft_in_bfloat16(name: str, tally: Tally) -> None:
    """The same with base, adapters and cache in bf16, against float64 over the same bf16 weights: the stated bound."""

    @seed(SEED)
    @often()
    @given(cases(name))
    def run(case: tuple[list[Recipe], list[Job], int]) -> None:
        check(name, torch.bfloat16, case, tally)

    run()
    assert tally.positions > 0
    assert tally.mean <= MEAN_BOUND


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_part_of_every_architecture(name: str, tmp_path: Path, tally: Tally) -> None:
    """An adapter on each kind of module alone, LoRA or DoRA (ends: both), in one batch that decodes past
    three windows; each moves the logits by far more than any bound, and each is PEFT's."""
    model, prompt = base_model(name, SEED), (1, 2, 3, 4, 5)
    oracles: dict[str, Any] = {BASE_REF: plain(name, SEED)}
    base, folders = oracle_logits(oracles[BASE_REF], prompt, [0]), {}
    for index, part in enumerate(adaptable(name)):
        for dora in (False, True) if part in ENDS else (bool(index % 2),):
            ref = f"{part}-{dora}@1"
            config = {"r": 3, "target_modules": [part], "use_dora": dora, "fan_in_fan_out": name == "GPT2Config"}
            folders[ref] = tmp_path / ref
            oracles[ref] = make_adapter(folders[ref], model, Recipe(config, index))
            moved = oracle_logits(oracles[ref], prompt, [0]) - base
            assert float(moved.abs().max() / base.abs().max()) > 0.01, part
    rows = [Job(ref, prompt[: 1 + index % 5], 4 * WINDOW) for index, ref in enumerate(oracles)]
    compare(Bench(runner_of(name, SEED, torch.float32), folders), rows, oracles, tally)
