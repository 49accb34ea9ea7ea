"""The Engine port, the same claims of every engine, in a thread of this process and in a process of its own.

Another engine is one more form. What is claimed of text is claimed above the port (tests/worker/text).
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest
import pytest_asyncio

from lorapool.shared.errors import AdapterConflict, InvalidRequest
from lorapool.shared.job import FinishReason
from lorapool.worker.engine.adapter_source import AdapterSource
from lorapool.worker.engine.busy_time import BusyTime
from lorapool.worker.engine.port import name_of
from lorapool.worker.engine_process.supervisor import EngineProcess
from tests.engine_port.bench import Bench, in_process, in_thread, request
from tests.engine_port.model import BREAK, CONTEXT, LEAK, LONG_WORDS, NAP
from tests.fake_runner import alternatives, completion
from tests.fake_vocabulary import END, spelled

FORMS: dict[str, Callable[..., AbstractAsyncContextManager[Bench]]] = {
    "native in a thread": in_thread,
    "native in a process": in_process,
    "fake in a thread": partial(in_thread, kind="FakeEngineModel"),
    "fake in a process": partial(in_process, kind="FakeEngineModel"),
}
FLAG = """start: %json {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"],
"additionalProperties": false, "x-guidance": {"whitespace_flexible": false}}"""
pytestmark = pytest.mark.asyncio(loop_scope="module")  # an engine of each form serves most of the tests


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=FORMS)
async def shared(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    async with FORMS[request.param](step_s=0.002) as bench:
        yield bench


@pytest.fixture
def bench(shared: Bench) -> Bench:
    """A form of the engine, and nothing reported yet."""
    shared.updates.clear()
    shared.starts.clear()
    shared.losses.clear()
    return shared


async def test_tokens_come_in_order_and_are_right(bench: Bench) -> None:
    """All tokens of all sequences arrive, each sequence's in order, at their offsets, with what was asked for."""
    for number in range(6):
        bench.add(f"s{number}", [number + 1], 9, logprobs=True)
    await bench.ends(*(f"s{number}" for number in range(6)))
    assert {f"s{number}" for number in range(6)} == {start.seq_id for start in bench.starts}
    for number in range(6):
        assert completion([number + 1], "", 9) == bench.tokens(f"s{number}")
        updates = [update for update in bench.updates if update.seq_id == f"s{number}"]
        assert list(range(9)) == [update.offset for update in updates for _ in update.token_ids]
        assert 9 * (-0.5,) == tuple(value for update in updates for value in update.logprobs)
        assert updates[-1].finish_reason is FinishReason.LENGTH


async def test_it_says_what_it_is(bench: Bench) -> None:
    """Device, dtype and context by name; the rest as the heartbeat shows it."""
    facts = bench.engine.facts
    assert ("port", "float32", CONTEXT) == (facts.device, facts.dtype, facts.max_model_len)
    said = {"device": "port", "dtype": "float32", "max_model_len": CONTEXT, "grammars": int(facts.grammars)}
    assert {**facts.more, **said} == facts.fields()


async def test_an_end_token_ends_a_sequence_and_is_part_of_it(bench: Bench) -> None:
    """Any of those that the request names, unless they are to be ignored; then, and without any, its length ends it."""
    whole = completion([5], "", 9)
    for name, options in {
        "ends": {"eos_ids": (whole[3], 10**6)},
        "ignores": {"eos_ids": (whole[3],), "ignore_eos": True},
        "other": {"eos_ids": (10**6,)},
    }.items():
        bench.add(name, [5], 9, **options)
    await bench.ends("ends", "ignores", "other")
    assert whole[: whole.index(whole[3]) + 1] == bench.tokens("ends")
    assert whole == bench.tokens("ignores") == bench.tokens("other")
    reasons = {update.seq_id: update.finish_reason for update in bench.updates if update.is_last}
    assert {"ends": "eos_token", "ignores": "length", "other": "length"} == reasons


async def test_the_end_of_the_context_ends_a_sequence(bench: Bench) -> None:
    """What fits is generated, and the reason is length."""
    bench.add("s", [1] * (CONTEXT - 3), 100)
    await bench.ends("s")
    assert 3 == len(bench.tokens("s"))
    assert FinishReason.LENGTH is bench.updates[-1].finish_reason


async def test_logprobs_come_where_they_were_asked_for(bench: Bench) -> None:
    """One a token, and none for a neighbour in the same steps."""
    bench.engine.add(request("asked", [1], 5, logprobs=True), request("not", [2], 5))
    await bench.ends("asked", "not")
    counts = {name: sum(len(u.logprobs) for u in bench.updates if u.seq_id == name) for name in ("asked", "not")}
    assert {"asked": 5, "not": 0} == counts


async def test_alternatives_come_where_they_were_asked_for(bench: Bench) -> None:
    """As many as each asked for, at every place, best first; a neighbour that asked for logprobs alone gets none."""
    bench.engine.add(
        request("three", [1], 5, logprobs=True, top_logprobs=3),
        request("twenty", [2], 5, logprobs=True, top_logprobs=20),
        request("none", [3], 5, logprobs=True),
    )
    await bench.ends("three", "twenty", "none")
    told = {name: [top for u in bench.updates if u.seq_id == name for top in u.top] for name in ("three", "twenty")}
    assert [3] * 5 == [len(top) for top in told["three"]]
    assert [20] * 5 == [len(top) for top in told["twenty"]]
    assert all(list(top) == sorted(top, key=lambda one: -one[1]) for top in told["twenty"])
    assert [alternatives(token, 3) for token in completion([1], "", 5)] == told["three"]
    assert not any(update.top for update in bench.updates if update.seq_id == "none")


async def test_a_bias_reaches_the_scores(bench: Bench) -> None:
    """100 forces a token, for that sequence alone."""
    bench.engine.add(request("forced", [1], 3, logit_bias=((7, 0.5), (9, 100.0))), request("free", [2], 3))
    await bench.ends("forced", "free")
    assert [9, 9, 9] == bench.tokens("forced")
    assert completion([2], "", 3) == bench.tokens("free")


async def test_tokens_that_there_are_not_fail_their_request_only(bench: Bench) -> None:
    """Of a prompt or a bias: they would be read from beyond the weights. The error names them, and the size."""
    bench.add("prompt", [1, 70_000])
    bench.add("bias", [1], logit_bias=((1, 1.0), (1000, 1.0)))
    bench.add("good", [1])
    await bench.ends("prompt", "bias", "good")
    for name, strange in {"prompt": "70000", "bias": "1000"}.items():
        assert isinstance(bench.error(name), InvalidRequest)
        assert strange in str(bench.error(name))
        assert "the vocabulary has 1000 tokens" in str(bench.error(name))
    assert completion([1], "", 4) == bench.tokens("good")


async def test_a_grammar_is_spelled(bench: Bench) -> None:
    """To its end, which ends the sequence, with or without an end token; where it is cut off, the reason is length."""
    assert bench.engine.facts.grammars
    ids = {"eos_ids": (END,)}
    bench.engine.add(
        request("word", [1], 30, grammar='start: "yes" | "never"', **ids),
        request("json", [2], 200, grammar=FLAG, **ids),
        request("nameless", [3], 30, grammar="start: /[ab]{3}/"),
        request("stubborn", [4], 30, grammar="start: /[ab]{3}/", ignore_eos=True, **ids),
        request("cut", [5], 4, grammar="start: /[ab]{30}/", **ids),
    )  # fmt: skip
    await bench.ends("word", "json", "nameless", "stubborn", "cut")
    assert spelled(bench.tokens("word")) in {"yes", "never"}
    assert json.loads(spelled(bench.tokens("json")))["a"] in {True, False}
    for name in ("nameless", "stubborn", "cut"):
        assert re.fullmatch("[ab]{3,}", spelled(bench.tokens(name)))
    reasons = {update.seq_id: update.finish_reason for update in bench.updates if update.is_last}
    assert {"eos_token"} == {reason for name, reason in reasons.items() if name != "cut"}
    assert "length" == reasons["cut"]


async def test_neighbours_of_a_grammar_draw_what_they_drew_without(bench: Bench) -> None:
    """Rows of the base model and of an adapter, which has a row with a grammar too."""
    bench.engine.add(
        request("base", [3, 4], 12),
        request("held", [5], 12, grammar="start: /[ab]{12}/"),
        request("adapter", [3, 4], 12, ref="mates@1"),
        request("held too", [5], 12, ref="mates@1", grammar="start: /[ab]{12}/"),
    )
    await bench.ends("base", "held", "adapter", "held too")
    assert completion([3, 4], "", 12) == bench.tokens("base")
    assert completion([3, 4], "mates@1", 12) == bench.tokens("adapter")
    assert {"a", "b"} >= set(spelled(bench.tokens("held") + bench.tokens("held too")))


async def test_a_grammar_that_is_none_fails_its_request_only(bench: Bench) -> None:
    """With InvalidRequest and the reason; the next request of the same as well."""
    for name in ("bad", "again"):
        bench.engine.add(request(name, [1], grammar="start: ???"), request(f"good {name}", [1]))
        await bench.ends(name, f"good {name}")
        assert isinstance(bench.error(name), InvalidRequest)
        assert "the grammar is not served" in str(bench.error(name))
        assert completion([1], "", 4) == bench.tokens(f"good {name}")


async def test_batch_mates_do_not_change_an_answer(bench: Bench) -> None:
    """Alone, and again beside others that join, leave and use other adapters."""
    bench.add("alone", [3, 4], 12, ref="mates@1", seed=9, temperature=1.0)
    await bench.ends("alone")
    bench.add("again", [3, 4], 12, ref="mates@1", seed=9, temperature=1.0)
    for number in range(3):
        bench.add(f"mate{number}", [number], 2 + number)
    await bench.ends("again", "mate0", "mate1", "mate2")
    assert bench.tokens("alone") == bench.tokens("again") == completion([3, 4], "mates@1", 12)


async def test_who_never_had_a_row_never_started(bench: Bench) -> None:
    """One whose adapter cannot be had, and one that was aborted while it waited."""
    bench.add("unloadable", [1], ref="c@1", uri="missing:file")
    bench.add("waits", [1], ref="d@1", uri="slow:0.3")
    bench.engine.abort("waits")
    await bench.ends("unloadable")
    bench.add("good", [1])
    await bench.ends("good")
    assert ["good"] == [start.seq_id for start in bench.starts]


async def test_requests_added_together_join_the_same_step(bench: Bench) -> None:
    """Four of them, one step with four rows."""
    before = bench.engine.counters()
    bench.engine.add(*(request(f"t{number}", [number], 1) for number in range(4)))
    await bench.ends(*(f"t{number}" for number in range(4)))
    assert await _settled(lambda: bench.engine.counters().step_rows - before.step_rows == 4)
    assert 1 == bench.engine.counters().steps - before.steps


async def test_a_late_reader_gets_everything(bench: Bench) -> None:
    """Steps that pass while nobody reads are handed over together, or one after another; none is lost."""
    bench.add("s", [1], 50)
    await asyncio.sleep(0.3)
    await bench.ends("s")
    assert completion([1], "", 50) == bench.tokens("s")


async def test_a_bad_request_is_its_own_fault(bench: Bench) -> None:
    """What the engine refuses, and what cannot even be told to it, ends with InvalidRequest; the others go on."""
    unspeakable = request("unspeakable", [1], seed=2**70)
    bench.engine.add(request("long", [1] * CONTEXT), request("good", [1]), unspeakable, request("empty", []))
    await bench.ends("long", "good", "unspeakable", "empty")
    assert isinstance(bench.error("long"), InvalidRequest)
    assert f"expected 1 to {CONTEXT - 1}" in str(bench.error("long"))
    assert isinstance(bench.error("empty"), InvalidRequest)
    if isinstance(bench.engine, EngineProcess):  # a number that cannot travel
        assert isinstance(bench.error("unspeakable"), InvalidRequest)
    assert completion([1], "", 4) == bench.tokens("good")


async def test_another_digest_of_a_known_adapter_fails_that_request_only(bench: Bench) -> None:
    """A ref means one content; who says otherwise is told so, by the error of that name."""
    bench.add("first", [1], ref="conflict@1", digest="one")
    bench.add("other", [1], ref="conflict@1", digest="two")
    await bench.ends("first", "other")
    assert isinstance(bench.error("other"), AdapterConflict)
    assert completion([1], "one", 4) == bench.tokens("first")


async def test_an_adapter_that_cannot_be_loaded_fails_its_requests_by_name(bench: Bench) -> None:
    """An error that is not ours keeps its name and its words."""
    bench.add("bad", [1], ref="b@1", uri="missing:file")
    bench.add("good", [1], ref="a@1")
    await bench.ends("bad", "good")
    assert "FileNotFoundError" == name_of(bench.error("bad"))
    assert "/nowhere/at/all/file" in str(bench.error("bad"))
    assert completion([1], "a@1", 4) == bench.tokens("good")


async def test_a_row_that_breaks_its_step_fails_alone(bench: Bench) -> None:
    """Whatever its error says: half a character, or megabytes."""
    bench.add("bad", [BREAK])
    bench.add("worse", [LONG_WORDS])
    bench.add("good", [1])
    await bench.ends("bad", "worse", "good")
    assert ("RuntimeError", "broken on purpose") == (name_of(bench.error("bad")), str(bench.error("bad")))
    assert "RuntimeError" == name_of(bench.error("worse"))
    assert (3 << 20) + 1 == len(str(bench.error("worse")))
    assert completion([1], "", 4) == bench.tokens("good")


async def test_an_aborted_sequence_leaves(bench: Bench) -> None:
    """It frees its row at the next step and does not end; one that is not there is no matter."""
    bench.add("gone", [1], 5000)
    await bench.until(lambda: bench.tokens("gone"))
    bench.engine.abort("gone")
    bench.engine.abort("never")
    bench.add("next", [2])
    await bench.ends("next")
    assert completion([2], "", 4) == bench.tokens("next")
    assert not bench.ended("gone")


async def test_an_adapter_is_brought_near_before_it_is_asked_for(bench: Bench) -> None:
    """``near`` loads it into a slot; who asks then finds it resident, and the counters know."""
    before = bench.engine.counters()
    bench.engine.near(AdapterSource("near@1", "near@1", ""))
    assert await _settled(lambda: "near@1" in bench.engine.residency().device)
    bench.add("warm", [1], ref="near@1")
    bench.add("cold", [1], ref="far@1", uri="slow:0.05")
    await bench.ends("warm", "cold")
    starts = {start.seq_id: start for start in bench.starts}
    assert (0, True) == (starts["warm"].load_ms, starts["warm"].resident)
    assert not starts["cold"].resident
    assert starts["cold"].load_ms >= 30
    assert await _settled(lambda: bench.engine.counters().adapter_loads - before.adapter_loads == 2)
    assert {"near@1": 1, "far@1": 1} == bench.engine.counters().loaded - before.loaded
    assert frozenset({"near@1", "far@1"}) == bench.engine.residency().device
    assert frozenset() == bench.engine.residency().loading


async def test_an_adapter_on_its_way_is_seen(bench: Bench) -> None:
    """``residency`` says loading while it is read."""
    bench.add("s", [1], ref="slow@1", uri="slow:0.5")
    assert await _settled(lambda: bench.engine.residency().loading == {"slow@1"})
    await bench.ends("s")


async def test_steps_are_counted_and_timed(bench: Bench) -> None:
    """By the names that the heartbeat gives them; computing is busy time, waiting for work is not."""
    before, was = bench.engine.counters(), bench.engine.busy_time()
    assert set(BusyTime().totals()) == set(was)
    bench.add("s", [1, 2, 3], 25)
    await bench.ends("s")
    await asyncio.sleep(0.3)
    assert await _settled(lambda: bench.engine.counters().steps - before.steps == 25)
    now, after = bench.engine.busy_time(), bench.engine.counters()
    spent = {name: now[name] - was[name] for name in now}
    assert 25 * 2 <= spent["busy_ms"] <= spent["up_ms"] - 250
    assert 24 * 2 - 1 <= spent["decode_only_ms"] < spent["busy_ms"]
    assert 24 == spent["decode_only_tokens"] == after.decode_tokens - before.decode_tokens
    assert (3, 25) == (after.prefill_tokens - before.prefill_tokens, after.step_rows - before.step_rows)


async def test_counters_are_a_snapshot(bench: Bench) -> None:
    """What was asked for once does not change while the engine goes on."""
    before, steps = (counters := bench.engine.counters()), counters.steps
    bench.add("s", [1])
    await bench.ends("s")
    assert await _settled(lambda: bench.engine.counters().steps - steps == 4)
    assert steps == before.steps


async def test_it_is_up_and_well(bench: Bench) -> None:
    """``up`` returns, health says running, no restart, nothing ails; idle steps are young."""
    await bench.comes_up()
    await asyncio.sleep(0.3)
    health = bench.engine.health()
    assert ("running", "", 0) == (health.state, health.ails, health.restarts)
    assert health.step_age_s < 30


async def test_a_step_that_lasts_is_seen_to_age(bench: Bench) -> None:
    """``health`` tells for how long no boundary was passed."""
    bench.add("s", [NAP], 1)
    assert await _settled(lambda: bench.engine.health().step_age_s > 0.3)
    await bench.ends("s")
    assert await _settled(lambda: bench.engine.health().step_age_s < 0.3)


@pytest.mark.parametrize("form", FORMS)
async def test_an_engine_that_lost_count_ends_when_it_falls_idle(form: str) -> None:
    """A KV row that nobody gave back: the audit finds it. A thread's error is raised, a process is replaced."""
    async with FORMS[form]() as bench:
        bench.add("s", [LEAK])
        await bench.ends("s")
        if "thread" in form:
            with pytest.raises(AssertionError, match="leaked"):
                await bench.until(lambda: False)
        else:
            lost = await bench.lost()
            assert ("died", frozenset(), frozenset()) == (lost.why, lost.inside, lost.blamed)
            assert "leaked" in lost.reason
            await bench.comes_up()


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("form", FORMS)
async def test_it_closes_within_a_bound(form: str, *, busy: bool) -> None:
    """With work, after the current step; what is inside is dropped."""
    async with FORMS[form](step_s=0.05) as bench:
        if busy:
            bench.add("s", [1], 5000)
            bench.add("waits", [1], ref="a@1", uri="slow:0.5")
            await bench.until(lambda: bench.tokens("s"))
        began_s = time.monotonic()
        await bench.engine.close()
        assert time.monotonic() - began_s < 15
        await bench.engine.close()  # once more is no matter


async def test_a_reader_may_be_cancelled(bench: Bench) -> None:
    """Nothing that was reported is lost with it."""
    bench.add("s", [1], 60)
    while not bench.ended("s"):
        reading = asyncio.create_task(bench.until(lambda: bench.ended("s")))
        await asyncio.wait([reading], timeout=0.005)
        reading.cancel()
        await asyncio.wait([reading])
    assert completion([1], "", 60) == bench.tokens("s")


async def _settled(condition: Callable[[], bool]) -> bool:
    """Residency and counters are those of a recent step."""
    give_up_at = time.monotonic() + 20
    while time.monotonic() < give_up_at:
        if condition():
            return True
        await asyncio.sleep(0.01)
    return False
