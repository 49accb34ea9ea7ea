"""What must not matter to a row does not: its tokens are those that it has alone, in a calm engine.

The same rule as against PEFT: where a token differs, both must lie within δ of the oracle's choice, and it is counted.
A third of the rows sample, with their own seeds; the draws may not depend on the schedule either.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from lorapool.shared.job import BASE_REF
from lorapool.worker.engine.sequence import Batch, Drawn
from tests.parity.bench import Bench, Job, runner_of
from tests.parity.conftest import EXAMPLES, SEED
from tests.parity.verdict import BOUNDS, Tally, may_differ, uniform
from tests.parity.worlds import Recipe, base_model, make_adapter, oracle_logits, plain, random_prompt

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RECIPES: dict[str, dict[str, Any]] = {
    "plain@1": {"r": 8, "lora_alpha": 16, "target_modules": LINEAR},
    "plain@2": {"r": 5, "lora_alpha": 5, "target_modules": LINEAR, "use_rslora": True},
    "dora@1": {"r": 3, "lora_alpha": 3, "target_modules": LINEAR, "use_dora": True},
    "ends@1": {"r": 4, "lora_alpha": 4, "target_modules": ["embed_tokens", "lm_head", "v_proj"]},
    "bias@1": {"r": 33, "lora_alpha": 33, "target_modules": ["q_proj", "down_proj"], "lora_bias": True},
}


class World:
    """Adapters of one base model, the calm answer of every job asked so far, and the oracle that settles doubts."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.oracles = name, {BASE_REF: plain(name, SEED)}
        self.folders = {ref: folder / ref for ref in RECIPES}
        for index, (ref, config) in enumerate(RECIPES.items()):
            self.oracles[ref] = make_adapter(self.folders[ref], base_model(name, SEED), Recipe(config, SEED + index))
        self._calm: dict[Job, list[int]] = {}

    def bench(self, slots: int = 3, **options: Any) -> Bench:
        return Bench(runner_of(self.name, SEED, torch.float32, slots), dict(self.folders), **options)

    def calm(self, job: Job) -> list[int]:
        """The job alone, its prompt in one piece, every adapter in a slot of its own."""
        if job not in self._calm:
            bench = self.bench(slots=5, max_batch=1, prefill_tokens=1000)
            bench.add(job.row("alone"))
            self._calm[job] = bench.drain()["alone"]
        return self._calm[job]

    def same(self, job: Job, found: list[int], tally: Tally) -> None:
        """Hold an answer against the calm one, up to a position at which rounding may choose."""
        expected = self.calm(job)
        assert len(expected) == len(found)
        for place, pair in enumerate(zip(expected, found, strict=True)):
            tally.positions += 1
            if pair[0] != pair[1]:
                logits = oracle_logits(self.oracles[job.ref], job.prompt, expected)[place]
                draw = uniform(job.seed, place)
                assert all(may_differ(logits, token, job.params, draw, BOUNDS[torch.float32]) for token in pair), (
                    f"{job}: token {place} is {pair[1]}, alone it is {pair[0]}"
                )
                tally.excused += 1
                return

    def all_same(self, jobs: list[Job], bench: Bench, tally: Tally) -> None:
        assert not bench.errors, str(bench.errors)
        for index, job in enumerate(jobs):
            self.same(job, bench.tokens[str(index)], tally)


@pytest.fixture(scope="module", params=["LlamaConfig", "MistralConfig"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Tied ends in the one, windows in the other."""
    return World(request.param, tmp_path_factory.mktemp("adapters"))


@pytest.fixture
def chance() -> random.Random:
    return random.Random(SEED)


def make_jobs(chance: random.Random, count: int = 9, longest: int = 30) -> list[Job]:
    """All adapters and the base model, ragged; every third samples."""
    refs = [*RECIPES, BASE_REF]
    return [
        Job(
            refs[index % len(refs)],
            tuple(random_prompt(chance, longest)),
            chance.randint(3, 12),
            temperature=0.9 if index % 3 == 2 else 0.0,
            top_p=0.9 if index % 2 else 1.0,
            seed=chance.randrange(2**63),
        )
        for index in range(count)
    ]


def start(bench: Bench, jobs: list[Job], order: list[int] | None = None) -> None:
    for index in order or range(len(jobs)):
        bench.add(jobs[index].row(str(index)))


def test_the_rows_differ(world: World, chance: random.Random) -> None:
    """The premise: every adapter and the base model say something else, and so does another seed. To some of a few
    prompts, that is: to one, two random models may go on with the same token for ever."""
    jobs = [Job(BASE_REF, tuple(random_prompt(chance, 30)), 12) for _ in range(4)]

    def said(**changes: Any) -> tuple[int, ...]:
        return tuple(token for job in jobs for token in world.calm(replace(job, **changes)))

    answers = [said(ref=ref) for ref in [*RECIPES, BASE_REF]]
    answers += [said(temperature=1.5, seed=number) for number in (1, 2)]
    assert len(set(answers)) == len(answers)


def test_the_order_of_rows(world: World, chance: random.Random, tally: Tally) -> None:
    """Three shuffles of the same rows."""
    jobs = make_jobs(chance)
    for _ in range(3):
        bench = world.bench()
        start(bench, jobs, chance.sample(range(len(jobs)), len(jobs)))
        bench.drain()
        world.all_same(jobs, bench, tally)


def test_batch_mates(world: World, chance: random.Random, tally: Tally) -> None:
    """The same rows among others that join and are cancelled meanwhile."""
    jobs, mates = make_jobs(chance), make_jobs(chance, 12, 60)
    bench = world.bench()
    start(bench, jobs)
    waiting = iter(enumerate(mates))

    def meddle() -> None:
        if (mate := next(waiting, None)) is not None:
            bench.add(mate[1].row(f"mate{mate[0]}"))
        if chance.random() < 0.4:
            bench.engine.abort(f"mate{chance.randrange(len(mates))}")

    bench.drain(meddle)
    world.all_same(jobs, bench, tally)


@pytest.mark.parametrize("chunk", [1, 4, 7])
def test_chunks_of_the_prompt(world: World, chance: random.Random, tally: Tally, chunk: int) -> None:
    """Prompts computed a few tokens a step, beside rows that decode."""
    jobs = make_jobs(chance, 7)
    bench = world.bench(prefill_tokens=chunk)
    start(bench, jobs)
    bench.drain()
    world.all_same(jobs, bench, tally)


def test_eviction_and_reloading(world: World, chance: random.Random, tally: Tally) -> None:
    """Five adapters through one slot, each three times."""
    jobs = make_jobs(chance, 18)
    bench = world.bench(slots=1)
    for wave in range(3):
        start(bench, jobs, [*range(6 * wave, 6 * wave + 6)])
        bench.drain()
    world.all_same(jobs, bench, tally)
    assert bench.adapters.evictions >= 10


def test_adapters_that_come_and_go(world: World, chance: random.Random, tally: Tally) -> None:
    """An adapter made known, used, unloaded and forgotten while others decode, again and again in the same slots."""
    jobs = [replace(job, count=24) for job in make_jobs(chance, 6) if job.ref != "dora@1"]
    guest = Job("dora@1", (7, 8, 9), 3)
    bench = world.bench()
    bench.adapters.forget("dora@1")
    start(bench, jobs)
    visits = [0]

    def visit() -> None:
        name = f"guest{visits[0]}"
        if name not in bench.tokens:
            bench.know("dora@1", world.folders["dora@1"])
            bench.add(guest.row(name))
        elif len(bench.tokens[name]) == guest.count:
            assert bench.adapters.forget("dora@1")
            visits[0] += bench.engine.has_work

    bench.drain(visit)
    assert visits[0] >= 3
    world.all_same(jobs, bench, tally)
    for number in range(visits[0]):
        world.same(guest, bench.tokens[f"guest{number}"], tally)


def test_a_prefix_shared_across_adapters(world: World, tally: Tally) -> None:
    """The same prompt under every adapter and the base model at once, twice: nothing of one reaches another."""
    jobs = [Job(ref, tuple(range(20)), 10) for ref in [*RECIPES, BASE_REF]] * 2
    bench = world.bench()
    start(bench, jobs)
    bench.drain()
    world.all_same(jobs, bench, tally)


def test_a_new_version_beside_the_old(world: World, tally: Tally) -> None:
    """Rows of two versions of one adapter in the same steps; the old one is unloaded in between and comes back."""
    old, new = Job("plain@1", (1, 2, 3), 8), Job("plain@2", (1, 2, 3), 8)
    bench = world.bench(slots=3)
    start(bench, [old, new])
    bench.drain()
    assert bench.adapters.forget("plain@1")
    bench.add(new.row("2"))
    bench.drain()
    bench.know("plain@1", world.folders["plain@1"])
    bench.add(old.row("3"))
    bench.drain()
    world.all_same([old, new, new, old], bench, tally)


def test_a_long_row_beside_short_ones(world: World, chance: random.Random, tally: Tally) -> None:
    """A prompt of 100 tokens, in another lane of the cache and in chunks, beside prompts of one and two."""
    jobs = [Job("dora@1", tuple(chance.randrange(50) for _ in range(100)), 12)]
    jobs += [replace(job, prompt=job.prompt[: 1 + index % 2], count=20) for index, job in enumerate(make_jobs(chance))]
    bench = world.bench(max_batch=10)
    start(bench, jobs)
    bench.drain()
    world.all_same(jobs, bench, tally)


def test_preemption(world: World, chance: random.Random, tally: Tally) -> None:
    """Rows lose row and slot in the middle of prompt or answer, their adapters are evicted, and they go on later."""
    jobs = [replace(job, count=16) for job in make_jobs(chance)]
    bench = world.bench(slots=2)
    start(bench, jobs)

    def preempt() -> None:
        running = bench.engine._scheduler.running
        if running and chance.random() < 0.4:
            bench.engine.preempt(chance.choice(running).seq_id)

    bench.drain(preempt)
    world.all_same(jobs, bench, tally)
    assert bench.engine.counters.preemptions >= 5
    assert bench.adapters.evictions >= 1


def test_a_row_that_goes_on_elsewhere(world: World, chance: random.Random, tally: Tally) -> None:
    """A half-done answer continued by another engine from its tokens alone: the rest is the same, sampled or not."""
    jobs = make_jobs(chance)
    bench = world.bench()
    for index, job in enumerate(jobs):
        given = world.calm(job)[: index % job.count]
        bench.add(job.row(str(index), given))
        bench.tokens[str(index)] = list(given)
    bench.drain()
    world.all_same(jobs, bench, tally)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, world: World) -> Callable[[Callable[[Batch], bool]], None]:
    """Make steps raise, after half of their work, where the given function says so."""

    def install(fails: Callable[[Batch], bool]) -> None:
        runner = runner_of(world.name, SEED, torch.float32, 3)
        whole = runner.step

        def step(batch: Batch) -> list[Drawn]:
            drawn = whole(batch)
            if fails(batch):
                raise RuntimeError("broken on purpose")
            return drawn

        monkeypatch.setattr(runner, "step", step)

    return install


def test_a_row_whose_steps_raise(world: World, chance: random.Random, tally: Tally, broken: Any) -> None:
    """It alone ends with the error; its neighbours, also on its own adapter, do not notice."""
    jobs = make_jobs(chance)
    broken(lambda batch: any(w.sequence.seq_id == "bad" and w.sequence.output_ids for w in batch.works))
    bench = world.bench()
    bench.add(jobs[0].row("bad"))
    start(bench, jobs)
    bench.drain()
    assert "broken on purpose" in str(bench.errors.pop("bad"))
    world.all_same(jobs, bench, tally)


def test_steps_that_raise_now_and_then(world: World, chance: random.Random, tally: Tally, broken: Any) -> None:
    """A step of several rows that raises is repeated by halves: the positions computed twice hold the same values."""
    jobs, several = make_jobs(chance), count()
    broken(lambda batch: len(batch.works) > 1 and next(several) % 4 == 2)
    bench = world.bench()
    start(bench, jobs)
    bench.drain()
    assert bench.engine.counters.failed_steps >= 3
    world.all_same(jobs, bench, tally)


def test_any_of_it_together(world: World, tally: Tally) -> None:
    """Rows of any adapter added, cancelled and preempted, adapters unloaded, at any step, with any chunk and slots."""

    @seed(SEED)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False), st.sampled_from([1, 3]), st.sampled_from([3, 1000]), st.integers(1, 8))
    def run(chance: random.Random, slots: int, chunk: int, max_batch: int) -> None:
        jobs = make_jobs(chance, 10)
        bench = world.bench(slots=slots, prefill_tokens=chunk, max_batch=max_batch)
        waiting, cancelled = list(range(len(jobs))), set[str]()

        def meddle() -> None:
            while waiting and chance.random() < 0.4:
                index = waiting.pop()
                bench.add(jobs[index].row(str(index)))
            running = [row.seq_id for row in bench.engine._scheduler.running]
            if running and chance.random() < 0.2:
                bench.engine.preempt(chance.choice(running))
            elif running and chance.random() < 0.05:
                cancelled.add(chance.choice(running))
                assert bench.engine.abort(max(cancelled & set(running)))

        while waiting:
            meddle()
            bench.step()
        bench.drain(meddle)
        assert not bench.errors
        for index, job in enumerate(jobs):
            if str(index) not in cancelled:
                world.same(job, bench.tokens[str(index)], tally)

    run()
