"""40 jobs over five adapters and the base model, mixed in one batch, against PEFT; and what it took in loads."""

from __future__ import annotations

import asyncio
import random
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from examples.voices import UNSEEN
from lorapool.producer.client.client import Client
from lorapool.producer.client.handle import JobHandle
from lorapool.shared.job import Result
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.settings import redis_settings
from tests.e2e.conftest import ADAPTERS, NAMES, RealPool, register_all
from tests.e2e.peft_reference import Answer, PeftReference
from tests.fleet import WorkerProcess, alive, real_worker

WAVES, WAVE_SIZE = 4, 10
MOST_TOKENS = 12
BASE_TOKENS = 24  # so many steps run while adapters come and go

pytestmark = pytest.mark.timeout(240)


@dataclass(frozen=True)
class Run:
    """What one worker answered, in the order of the requests, and what its counters grew by."""

    results: list[Result]
    counters: dict[str, int]

    def mixed_steps(self, adapters: int) -> int:
        """Steps of at least that many adapters together with base rows."""
        mixed = {name: count for name, count in self.counters.items() if name.startswith("mixed_steps_")}
        return sum(count for name, count in mixed.items() if int(name.rpartition("_")[2]) >= adapters)


@pytest.fixture(scope="module")
def waves() -> list[list[dict[str, Any]]]:
    """Four waves of ten requests: all five adapters, three of them twice, and two base rows. Who is asked what is
    always the same, so that the oracle's near ties are; the order is not, but agents take turns: no adapter is asked
    again before two others were."""
    seed = random.SystemRandom().randrange(2**32)
    print("order of the requests: seed", seed)
    draw = random.Random(seed)
    waves: list[list[dict[str, Any]]] = []
    for wave in range(WAVES):
        wanted = [*NAMES, *(NAMES[(wave + extra) % len(NAMES)] for extra in range(3)), None, None]
        requests = [_request(wave * WAVE_SIZE + index, name) for index, name in enumerate(wanted)]
        before = [item["adapter"] for item in (waves[-1] if waves else [])]
        while not _take_turns([*before, *(item["adapter"] for item in requests)]):
            draw.shuffle(requests)
        waves.append(requests)
    return waves


def _take_turns(order: list[str | None]) -> bool:
    names = [name for name in order if name is not None]
    return all(name not in names[max(0, place - 2) : place] for place, name in enumerate(names))


def _request(number: int, adapter: str | None) -> dict[str, Any]:
    """Every other one a chat; answers end at different steps, those of the base model last."""
    question = UNSEEN[number % len(UNSEEN)]
    asked = {"messages": [{"role": "user", "content": question}]} if number % 2 else {"prompt": question}
    tokens = MOST_TOKENS if adapter else BASE_TOKENS
    return {"adapter": adapter, "max_new_tokens": tokens - number % 5, **asked}


async def _run(url: str, pool: str, worker: WorkerProcess, waves: list[list[dict[str, Any]]]) -> Run:
    before = await _counters(url, pool, worker.name)
    results: list[Result] = []
    async with Client(url, pool=pool) as client:
        for wave in waves:
            for answer in await client.gather(await _backlog(client, worker, wave), timeout=100):
                assert isinstance(answer, Result), answer
                results.append(answer)
    after = await _counters(url, pool, worker.name)
    return Run(results, {name: after[name] - before.get(name, 0) for name in after})


async def _backlog(client: Client, worker: WorkerProcess, wave: list[dict[str, Any]]) -> list[JobHandle]:
    """Submit one after another, each at a time of its own, while the worker is frozen: it finds them all waiting."""
    worker.signal(signal.SIGSTOP)
    handles = []
    try:
        for request in wave:
            handles.append(await client.submit(**request))
            await asyncio.sleep(0.003)
    finally:
        worker.signal(signal.SIGCONT)
    return handles


async def _counters(url: str, pool: str, worker: str) -> dict[str, int]:
    redis = connect(redis_settings(url))
    await asyncio.sleep(0.5)  # two beats: the last steps are in it
    fields = await alive(redis, worker, pool)
    await redis.aclose()
    named = ("joins", "evictions", "adapter_loads", "steps")
    return {name: int(value) for name, value in fields.items() if name in named or name.startswith("mixed_steps_")}


def _own_worker(url: str, base_model: Path, waves: list[list[dict[str, Any]]], name: str, *flags: str) -> Run:
    """A run on a worker and pool of its own."""
    shared = ("--pool", name, "--max-batch", "16", "--starvation", "60", "--adapter-root", str(ADAPTERS))
    with real_worker(url, *shared, *flags, name=name, base_model=base_model) as worker:
        asyncio.run(register_all(url, name, name))
        run = asyncio.run(_run(url, name, worker, waves))
        assert worker.stop() == 0
    return run


@pytest.fixture(scope="module")
def two_slots(real_pool: RealPool, waves: list[list[dict[str, Any]]]) -> Run:
    return asyncio.run(_run(real_pool.url, "default", real_pool.worker, waves))


@pytest.fixture(scope="module")
def by_arrival(real_server: str, base_model: Path, waves: list[list[dict[str, Any]]]) -> Run:
    return _own_worker(real_server, base_model, waves, "arrival", "--slots", "2", "--claim-policy", "arrival")


@pytest.fixture(scope="module")
def four_slots(real_server: str, base_model: Path, waves: list[list[dict[str, Any]]]) -> Run:
    return _own_worker(real_server, base_model, waves, "wide", "--slots", "4")


def test_adapters_differ(reference: PeftReference) -> None:
    """Each adapter, and the base model, says something else to the same words: a mix-up could not go unseen."""
    ids = reference.prompt_ids(None, [{"role": "user", "content": UNSEEN[0]}])
    logits = [reference.logits(name, [ids])[0][-1] for name in (*NAMES, None)]
    for index, mine in enumerate(logits):
        for other in logits[index + 1 :]:
            assert float((mine - other).abs().max()) > 0.5


@pytest.mark.parametrize("which", ["two_slots", pytest.param("four_slots", marks=pytest.mark.long)])
def test_tokens_are_those_of_peft(
    which: str, request: pytest.FixtureRequest, reference: PeftReference, waves: list[list[dict[str, Any]]]
) -> None:
    """Greedy tokens in the mixed batch equal those of unmerged PEFT on the row's adapter alone."""
    run: Run = request.getfixturevalue(which)
    asked = [item for wave in waves for item in wave]
    answers = [
        Answer(item["adapter"], reference.prompt_ids(item.get("prompt"), item.get("messages")), result.token_ids)
        for item, result in zip(asked, run.results, strict=True)
    ]
    verdicts = reference.verdicts(answers)
    excused = [verdict for verdict in verdicts if verdict.excused is not None]
    print(f"{which}: {len(excused)} of {len(verdicts)} rows excused")
    assert [] == [(index, verdict) for index, verdict in enumerate(verdicts) if verdict.wrong is not None]
    assert len(excused) <= len(verdicts) // 100


def test_prompts_are_tokenized_as_transformers_does(
    two_slots: Run, reference: PeftReference, waves: list[list[dict[str, Any]]]
) -> None:
    """Prompt tokens as counted are those of transformers' tokenizer and chat template."""
    asked = [item for wave in waves for item in wave]
    expected = [len(reference.prompt_ids(item.get("prompt"), item.get("messages"))) for item in asked]
    assert expected == [result.usage.prompt_tokens for result in two_slots.results]


def test_two_slots_were_shared(two_slots: Run) -> None:
    """Two adapters and base rows ran in the same steps, adapters came and went, sequences joined running ones."""
    print("two slots:", two_slots.counters)
    assert two_slots.mixed_steps(adapters=2) >= 20
    assert two_slots.counters["evictions"] >= 10
    assert two_slots.counters["joins"] >= 4


@pytest.mark.long  # briefly: tests/parity, where four adapters share three slots
def test_four_slots_were_shared(four_slots: Run) -> None:
    """Three or more adapters and base rows ran in the same steps."""
    print("four slots:", four_slots.counters)
    assert four_slots.mixed_steps(adapters=3) >= 20


@pytest.mark.long  # briefly: test_affinity.py
def test_affinity_halves_the_loads(two_slots: Run, by_arrival: Run) -> None:
    """Claiming by affinity loads adapters at most half as often as claiming in order of arrival, same answers."""
    loads, arrival = two_slots.counters["adapter_loads"], by_arrival.counters["adapter_loads"]
    print(f"adapter loads: {loads} by affinity, {arrival} in order of arrival")
    assert loads <= arrival / 2
    assert [result.token_ids for result in two_slots.results] == [result.token_ids for result in by_arrival.results]
