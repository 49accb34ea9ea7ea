"""EngineProcess: what the end of the engine's process costs, however it comes, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from lorapool.shared.errors import BaseModelError
from lorapool.worker.engine.port import EngineDown, EngineFailed, Lost
from lorapool.worker.engine_process import spawned as spawned_engine
from lorapool.worker.engine_process import supervisor as engine_process
from lorapool.worker.engine_process.supervisor import MOST_FRUITLESS
from tests.engine_port.bench import Bench, descriptors, gone, in_process, loads, process, quiet, request
from tests.engine_port.model import BABBLE, DIE, LIE, SICKEN, SLEEP, SLEEP_IN_C
from tests.fake_runner import completion
from tests.fleet import until

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one engine serves, and dies in, most of the tests
HUNG_S = 2.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[Bench]:
    async with in_process(HUNG_S, max_batch=2, step_s=0.002) as bench:
        bench.add("first", [1])
        await bench.ends("first")
        bench.descriptors = descriptors()
        yield bench


@pytest.fixture
def bench(shared: Bench) -> Bench:
    """The engine, up to two rows a step, and nothing reported yet."""
    assert "running" == shared.engine.health().state
    shared.updates.clear()
    shared.starts.clear()
    shared.losses.clear()
    return shared


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_process, "FIRST_PAUSE_S", 0.001)


async def _serves(bench: Bench, seq_id: str = "after") -> None:
    """It is up again, and well."""
    await bench.comes_up()
    bench.add(seq_id, [7])
    await bench.ends(seq_id)
    assert completion([7], "", 4) == bench.tokens(seq_id)


async def test_a_death_blames_the_rows_of_the_step(bench: Bench) -> None:
    """Those in the step with the deadly one are blamed, who waits inside is not; all are told; it starts again, its
    counters and times go on from where they were."""
    bench.add("early", [1], 8)
    await bench.ends("early")
    first, before, busy = bench.pid, bench.engine.counters(), bench.engine.busy_time()
    restarts = bench.engine.health().restarts
    bench.engine.add(request("deadly", [DIE]), request("mate", [2]), request("waits", [3]))
    lost = await bench.lost()
    assert Lost("died", lost.reason, frozenset({"deadly", "mate", "waits"}), frozenset({"deadly", "mate"})) == lost
    assert "SIGKILL" in lost.reason
    assert before == bench.engine.counters()
    await _serves(bench)
    health = bench.engine.health()
    assert ("running", "", restarts + 1) == (health.state, health.ails, health.restarts)
    assert first != bench.pid
    assert before.steps + 4 == bench.engine.counters().steps
    assert before.decode_tokens + 4 == bench.engine.counters().decode_tokens
    assert bench.engine.busy_time()["busy_ms"] >= busy["busy_ms"]
    assert bench.engine.busy_time()["up_ms"] > busy["up_ms"]


async def test_who_left_before_the_end_is_not_lost(bench: Bench) -> None:
    """Cancelled rows may have been those to blame: that is no reason to blame who was not in the step."""
    bench.engine.add(request("hangs", [SLEEP]), request("mate", [2]), request("waits", [1]))
    await asyncio.sleep(0.2)
    bench.engine.abort("hangs")
    bench.engine.abort("mate")
    lost = await bench.lost()
    assert Lost("hung", lost.reason, frozenset({"waits"}), frozenset()) == lost
    await _serves(bench)


async def test_killed_while_idle_nobody_is_lost(bench: Bench) -> None:
    """It just starts again; what is asked for meanwhile comes back as not begun, and where it is is known again."""
    bench.add("s", [1], ref="a@1")
    await bench.ends("s")
    os.kill(bench.pid, signal.SIGKILL)
    lost = await bench.lost()
    assert (frozenset(), frozenset()) == (lost.inside, lost.blamed)
    assert frozenset() == bench.engine.residency().device
    assert "starting" == bench.engine.health().state
    assert "died: killed by SIGKILL" in bench.engine.health().ails
    bench.add("early", [1])
    bench.engine.near(request("", [], ref="a@1").source)  # type: ignore[arg-type]
    bench.engine.abort("early")
    await bench.ends("early")
    assert isinstance(bench.error("early"), EngineDown)
    await _serves(bench)


async def test_an_adapter_that_kills_is_blamed_on_those_who_want_it(bench: Bench) -> None:
    """However fast it dies: not on the rows that ran, nor on those of other adapters."""
    bench.add("runs", [1], 5000)
    await bench.until(lambda: bench.tokens("runs"))
    bench.engine.add(request("deadly", [2], ref="d@1", uri="deadly:"), request("also", [3], ref="d@1", uri="deadly:"))
    lost = await bench.lost()
    assert {"runs", "deadly", "also"} == lost.inside
    assert {"deadly", "also"} <= lost.blamed
    await _serves(bench)


async def test_killed_while_an_adapter_loads(bench: Bench) -> None:
    """Those who wait for it are blamed, those who wait for another are not."""
    bench.engine.add(
        request("one", [2], ref="a@1", uri="slow:60"),
        request("two", [3], ref="a@1", uri="slow:60"),
        request("other", [3], ref="b@1", uri="slow:0"),
    )
    await until(lambda: {"a@1", "b@1"} <= bench.engine.residency().loading)
    os.kill(bench.pid, signal.SIGKILL)
    lost = await bench.lost()
    assert Lost("died", lost.reason, frozenset({"one", "two", "other"}), frozenset({"one", "two"})) == lost
    await _serves(bench)


@pytest.mark.parametrize("act", [SLEEP, SLEEP_IN_C])
async def test_a_hung_step_is_ended(bench: Bench, act: int) -> None:
    """In Python, or in C with the interpreter's lock held: its rows are blamed, the next process serves."""
    bench.engine.add(request("hangs", [act]), request("mate", [2]), request("waits", [3]))
    lost = await bench.lost()
    assert Lost("hung", lost.reason, frozenset({"hangs", "mate", "waits"}), frozenset({"hangs", "mate"})) == lost
    assert "--step-timeout" in lost.reason
    await _serves(bench)


async def test_a_stopped_process_is_ended(bench: Bench) -> None:
    """SIGSTOP passes no boundaries either."""
    bench.add("s", [1], 5000)
    await bench.until(lambda: bench.tokens("s"))
    os.kill(bench.pid, signal.SIGSTOP)
    assert "hung" == (await bench.lost()).why
    await _serves(bench)


async def test_time_that_both_slept_through_does_not_count(bench: Bench) -> None:
    """A machine that was suspended for longer than the bound: nothing hangs."""
    bench.add("s", [1], 400)
    await bench.until(lambda: bench.tokens("s"))
    os.kill(bench.pid, signal.SIGSTOP)
    time.sleep(HUNG_S + 0.5)  # noqa: ASYNC251  this event loop too
    os.kill(bench.pid, signal.SIGCONT)
    await bench.ends("s")
    assert [] == bench.losses
    assert completion([1], "", 400) == bench.tokens("s")


async def test_a_sick_device_is_nobodys_fault_and_has_an_end() -> None:
    """Nobody is blamed; it is started again a bounded number of times while nothing gets done, then it has failed."""
    async with in_process() as bench:
        for number in range(MOST_FRUITLESS["sick"] + 1):
            await bench.comes_up()
            bench.engine.add(request(f"a{number}", [SICKEN]), request(f"b{number}", [1]))
            lost = await bench.lost()
            assert lost == Lost("sick", lost.reason, frozenset({f"a{number}", f"b{number}"}), frozenset())
        with pytest.raises(EngineFailed, match=r"sick 3 times in a row.*illegal memory access"):
            await bench.until(lambda: False)
        assert MOST_FRUITLESS["sick"] == bench.engine.health().restarts


async def test_deaths_without_fruit_come_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses grow; whatever is finished in between begins the count anew."""
    monkeypatch.setitem(engine_process.MOST_FRUITLESS, "died", 2)
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    async with in_process() as bench:
        await _dies(bench, "one")
        await _serves(bench)
        monkeypatch.setattr(engine_process.asyncio, "sleep", noted)
        await _dies(bench, "two")
        await bench.comes_up()
        await _dies(bench, "three")
        await bench.comes_up()
        bench.add("four", [DIE])
        with pytest.raises(EngineFailed, match="died 3 times in a row"):
            await bench.until(lambda: False)
    slept = [pause for pause in pauses if pause not in {0, spawned_engine.LOOK_S}]
    assert 2 == len(slept)
    assert slept[1] > 1.9 * slept[0]


async def _dies(bench: Bench, seq_id: str) -> None:
    bench.add(seq_id, [DIE])
    assert {seq_id} == (await bench.lost()).blamed


async def test_the_first_loads_failure_is_the_models_own(tmp_path: Path) -> None:
    """BaseModelError with its words, and no second try; a process that dies while it loads is EngineFailed."""
    engine = process(diary=str(tmp_path), fails=[1], dies=[2])
    assert "port" == (await engine.identify(quiet))["base_model"]
    with pytest.raises(BaseModelError, match="load 1 fails on purpose"):
        await engine.load(quiet)
    with pytest.raises(EngineFailed, match=r"ended while it started: killed by SIGKILL"):
        await engine.load(quiet)
    await engine.close()
    assert 2 == len(loads(tmp_path))


async def test_loads_that_fail_again_are_tried_a_few_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One failure among them is outlived; MOST_STARTS in a row are told by what the last one said."""
    monkeypatch.setattr(engine_process, "MOST_STARTS", 2)
    fails = [2, 4, 5]
    async with in_process(diary=str(tmp_path), fails=fails) as bench:
        os.kill(bench.pid, signal.SIGKILL)
        await bench.lost()
        await _serves(bench)
        os.kill(bench.pid, signal.SIGKILL)
        with pytest.raises(EngineFailed, match=rf"does not start again: load {fails[-1]} fails on purpose"):
            await bench.until(lambda: False)
    assert fails[-1] == len(loads(tmp_path))


@pytest.mark.parametrize("act", [BABBLE, LIE])
async def test_one_that_makes_no_sense_is_ended(bench: Bench, act: int) -> None:
    """Bytes that are no message, a length that no message has: as if it had died."""
    bench.engine.add(request("s", [act]))
    lost = await bench.lost()
    assert Lost("died", lost.reason, frozenset({"s"}), frozenset({"s"})) == lost
    assert "what is no message" in lost.reason
    await _serves(bench)


async def test_megabytes_go_through(bench: Bench) -> None:
    """A prompt of 600,000 tokens in, and all that steps brought while nobody read out."""
    bench.add("long", [1000, *range(1, 600_000)], 1)
    for number in range(4):
        bench.add(f"s{number}", [number + 1], 100)
    time.sleep(0.5)  # noqa: ASYNC251  nobody reads meanwhile
    await bench.ends("long", *(f"s{number}" for number in range(4)))
    assert completion([4], "", 100) == bench.tokens("s3")


async def test_close_while_it_starts_again_leaves_nothing(tmp_path: Path) -> None:
    """In the middle of a load that hangs with the interpreter's lock held, and without waiting for it."""
    async with in_process(diary=str(tmp_path), hangs=[2]) as bench:
        os.kill(bench.pid, signal.SIGKILL)
        await bench.lost()
        pids = await until(lambda: len(loads(tmp_path)) == 2 and loads(tmp_path))
        began_s = time.monotonic()
        await bench.engine.close()
        assert time.monotonic() - began_s < 10
    assert gone(pids[1])


async def test_close_between_two_starts_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the pause before the next start: it does not come."""
    monkeypatch.setattr(engine_process, "FIRST_PAUSE_S", 60)
    async with in_process() as bench:
        os.kill(bench.pid, signal.SIGKILL)
        await bench.lost()
        began_s = time.monotonic()
        await bench.engine.close()
        assert time.monotonic() - began_s < 10


async def test_one_that_was_never_started_closes() -> None:
    """Neither loaded nor started, and loaded only."""
    engine = process()
    await engine.close()
    await engine.identify(quiet)
    assert engine._child is not None
    pid = engine._child.process.pid
    await engine.close()
    assert gone(pid)


async def test_starting_may_be_cancelled(tmp_path: Path) -> None:
    """The worker is told to stop while it loads."""
    engine = process(diary=str(tmp_path), hangs=[1])
    loading = asyncio.create_task(engine.load(quiet))
    [pid] = await until(lambda: loads(tmp_path))
    loading.cancel()
    await asyncio.wait([loading])
    await engine.close()
    assert gone(pid)


async def test_signals_to_the_whole_service_do_not_reach_it(bench: Bench) -> None:
    """SIGINT to the terminal's group, SIGTERM to each process of a unit: the worker acts upon them, not the engine."""
    assert os.getpgid(bench.pid) != os.getpgid(0)
    bench.add("s", [1], 60)
    await bench.until(lambda: bench.tokens("s"))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        os.kill(bench.pid, number)
    await bench.ends("s")
    assert [] == bench.losses


async def test_restarts_leave_no_descriptor_and_no_zombie(bench: Bench) -> None:
    """After all that has ended it here."""
    ended = []
    for number in range(3):
        ended.append(bench.pid)
        os.kill(bench.pid, signal.SIGKILL)
        await bench.lost()
        await _serves(bench, f"s{number}")
    assert descriptors() <= bench.descriptors
    assert not [pid for pid in ended if os.path.exists(f"/proc/{pid}")], "each was waited for"  # noqa: PTH110, ASYNC240  quick
