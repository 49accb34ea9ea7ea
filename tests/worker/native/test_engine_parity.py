"""The whole engine against unmerged PEFT: mixed adapters and ranks, base rows, ragged prompts, joins, evictions.

The rule of "being equal to PEFT": a greedy token lies within δ of PEFT's best logit at the same prefix, δ being twice
the bound on the logits, and so equals it wherever the gap is larger. Positions where another token was taken within δ
are counted; here none is allowed.
"""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import LlamaForCausalLM

from lorapool.shared.digest import adapter_digest
from lorapool.shared.job import BASE_REF
from lorapool.worker.adapters.checkpoint import AdapterWeights, load_checkpoint
from lorapool.worker.engine.adapter_cache import AdapterCache
from lorapool.worker.engine.adapter_source import AdapterSource
from lorapool.worker.engine.continuous_batch import ContinuousBatch
from lorapool.worker.engine.scheduler import Scheduler
from lorapool.worker.native.runner import ModelRunner
from tests.worker.tiny import VOCABULARY, Now, drain, peft_adapter, runner_over, sequence, tiny_llama, tokens

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS: dict[str, dict[str, Any]] = {
    "all@1": {"r": 8, "lora_alpha": 16, "target_modules": ALL},
    "odd@1": {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "v_proj"]},
    "one@1": {"r": 1, "lora_alpha": 4, "target_modules": ["down_proj"]},
    "rs@1": {"r": 16, "lora_alpha": 8, "target_modules": ALL[:4], "use_rslora": True},
    "layer@1": {"r": 5, "lora_alpha": 5, "target_modules": ALL[4:], "layers_to_transform": [1]},
    "pattern@1": {"r": 4, "lora_alpha": 4, "target_modules": ALL, "rank_pattern": {"q_proj": 7}},
    "dora@1": {"r": 4, "lora_alpha": 8, "target_modules": ALL, "use_dora": True},
}
BOUND = 1e-4  # of the logits, relative to their size, in float32


class World:
    """One base checkpoint, its adapters in PEFT's files, and PEFT as the oracle."""

    def __init__(self, folder: Path) -> None:
        self.base = folder / "base"
        tiny_llama().save_pretrained(self.base)
        self.folders = {
            ref: peft_adapter(folder / ref, self.base, seed, **config)
            for seed, (ref, config) in enumerate(ADAPTERS.items())
        }
        self.digests = {ref: adapter_digest(path) for ref, path in self.folders.items()}

    @cache  # noqa: B019  one object a module
    def oracle(self, ref: str) -> torch.nn.Module:
        model = LlamaForCausalLM.from_pretrained(self.base, dtype=torch.float64).eval()
        return model if ref == BASE_REF else PeftModel.from_pretrained(model, self.folders[ref]).eval()

    @torch.inference_mode()
    def logits(self, ref: str, prompt: list[int], output: list[int]) -> torch.Tensor:
        """[len(output), vocab], teacher-forced."""
        ids = torch.tensor([prompt + output])
        found: torch.Tensor = self.oracle(ref)(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        return found

    def excused(self, ref: str, prompt: list[int], output: list[int]) -> int:
        """Tokens that are not PEFT's best, though within δ; fails on any further off."""
        logits = self.logits(ref, prompt, output)
        best = logits.max(-1).values
        taken = logits.gather(1, torch.tensor(output)[:, None])[:, 0]
        assert bool((best - taken <= 2 * BOUND * logits.abs().max()).all()), f"{ref}: not PEFT's tokens"
        return int((logits.argmax(-1) != torch.tensor(output)).sum())

    def engine(self, runner: ModelRunner, *, max_batch: int = 6, prefill_tokens: int = 24) -> ContinuousBatch:
        def load(source: AdapterSource) -> AdapterWeights:
            return load_checkpoint(source.uri, runner.spec, runner.lora.max_rank, source.digest)

        for slot in runner.lora.occupied:
            runner.lora.clear(slot)
        adapters = AdapterCache(runner.lora, load, 1 << 24, Now())
        for ref, path in self.folders.items():
            adapters.know(AdapterSource(ref, self.digests[ref], str(path)))
        scheduler = Scheduler(max_batch=max_batch, prefill_tokens=prefill_tokens)
        return ContinuousBatch(runner, adapters, scheduler)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("parity"))


def _jobs(count: int, seed: int) -> list[tuple[str, list[int]]]:
    chance = random.Random(seed)
    refs = [*ADAPTERS, BASE_REF]
    return [
        (refs[index % len(refs)], [chance.randrange(VOCABULARY) for _ in range(chance.choice([1, 2, 9, 30, 70]))])
        for index in range(count)
    ]


def test_the_adapters_differ(world: World) -> None:
    """The premise: on one prompt every adapter and the base model give other logits than every other."""
    found = [world.logits(ref, [1, 2, 3], [4])[0] for ref in [*ADAPTERS, BASE_REF]]
    for index, one in enumerate(found):
        assert all(float((one - other).abs().max()) > 0.01 for other in found[index + 1 :])


@pytest.mark.parametrize("slots", [2, 7])
def test_mixed_batches_give_pefts_tokens(world: World, slots: int) -> None:
    """24 greedy rows over seven adapters and the base, joining and leaving, with evictions: all tokens are PEFT's."""
    runner = runner_over(LlamaForCausalLM.from_pretrained(world.base), slots=slots)
    engine = world.engine(runner)
    jobs = _jobs(24, seed=slots)
    for index, (ref, prompt) in enumerate(jobs):
        engine.add(sequence(str(index), prompt, ref, max_new_tokens=12))
    seen = drain(engine)
    excused = sum(world.excused(ref, prompt, tokens(seen[str(i)])) for i, (ref, prompt) in enumerate(jobs))
    assert excused == 0
    assert engine.counters.joins >= 5
    assert engine.counters.mixed_steps.total() >= 5
    assert engine.counters.evictions >= (5 if slots == 2 else 0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_are_near_pefts(world: World, dtype: str) -> None:
    """Teacher-forced in one ragged batch of all adapters: within 1e-4 in float32, within 8 % in bf16."""
    from lorapool.worker.engine.sequence import Batch, Work

    runner = runner_over(LlamaForCausalLM.from_pretrained(world.base, dtype=getattr(torch, dtype)), slots=7)
    rows = []
    for index, (ref, prompt) in enumerate(_jobs(16, seed=3)):
        row = sequence(str(index), prompt, ref)
        if ref != BASE_REF:
            row.slot = list(ADAPTERS).index(ref) + 1
            path = world.folders[ref]
            runner.lora.write(row.slot, load_checkpoint(path, runner.spec, 16)) if index < 8 else None
        assert runner.reserve(row.seq_id, len(prompt))
        rows.append(row)
    batch = Batch.of([Work(row, 0, row.length) for row in rows])
    got = runner.all_logits(batch).double()
    start, worst = 0, 0.0
    for work in batch.works:
        row = work.sequence
        want = world.logits(row.ref, row.prompt_ids, [0])[0]
        mine = got[start + work.count - 1]
        worst = max(worst, float((mine - want).abs().max() / want.abs().max()))
        start += work.count
    print(f"{dtype}: largest relative difference {worst:.2g}")
    assert worst <= (BOUND if dtype == "float32" else 0.08)


def test_batch_mates_and_chunks_do_not_change_tokens(world: World) -> None:
    """The same rows alone, together, in small chunks and in another order: the same tokens, sampled ones too."""
    runner = runner_over(LlamaForCausalLM.from_pretrained(world.base), slots=3)
    jobs = _jobs(10, seed=9)

    def run(order: list[int], max_batch: int, prefill_tokens: int) -> dict[str, list[int]]:
        engine = world.engine(runner, max_batch=max_batch, prefill_tokens=prefill_tokens)
        for index in order:
            ref, prompt = jobs[index]
            warm = 1.0 if index % 2 else 0.0
            engine.add(sequence(str(index), prompt, ref, seed=index, temperature=warm, max_new_tokens=8))
        return {seq_id: tokens(updates) for seq_id, updates in drain(engine).items()}

    calm = run(list(range(10)), max_batch=1, prefill_tokens=1000)
    assert calm == run(list(range(10)), max_batch=10, prefill_tokens=1000)
    assert calm == run(list(reversed(range(10))), max_batch=4, prefill_tokens=5)
