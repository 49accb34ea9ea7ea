"""The bill: dollars from counters, on figures that can be worked out by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis

from lorapool.producer import Bill, Client, InvalidRequest, Tariff
from lorapool.producer.operator.cost_plot import gpus_for, plot
from lorapool.producer.operator.meter import Meter
from lorapool.shared.server.keys import PoolKeys
from tests.producer.canned_worker import CannedWorker
from tests.producer.commands.test_cli import Run, _json

HOUR = 3_600_000


def counters(succeeded: int, prompt: int, completion: int, **more: int) -> dict[str, int]:
    tokens = {"prompt_tokens": prompt, "completion_tokens": completion}
    return {"submitted": succeeded, "succeeded": succeeded, **tokens, **more}


# Two GPUs for ten hours, half of the time busy: 1,000 requests, a fifth of the busy time spent on reading prompts.
METER = Meter(
    adapters={
        "cfo@1": counters(750, 30_000, 60_000, slot_hits=600, slot_misses=150, load_ms=9_000),
        "ceo@1": counters(250, 10_000, 20_000, slot_hits=250, slot_misses=0),
        "new@1": {},
    },
    agents={"board": counters(500, 20_000, 40_000), "desk": counters(500, 20_000, 40_000)},
    usage={
        "up_ms": 20 * HOUR, "open_ms": 10 * HOUR, "busy_ms": 10 * HOUR, "decode_only_ms": 6 * HOUR,
        "decode_only_tokens": 60_000, "decode_tokens": 80_000, "prefill_tokens": 40_000, "steps": 10_000,
        "step_rows": 40_000, "since_ms": 1_000, "last_ms": 2_000,
    },
    model_load_ms=36_000,
)  # fmt: skip
BILL = Bill(METER, Tariff(gpu_usd_per_hour=4.0))


def test_dollars_are_hours_held_times_price() -> None:
    """Twenty GPU hours at $4 are $80 for 1,000 requests; ten hours of them idle."""
    assert (80.0, 0.08, 0.5) == (BILL.usd, BILL.usd_per_request, BILL.idle_share)
    assert 120.0 == Bill(METER, Tariff(4.0, gpu_hours=30)).usd


def test_prompts_and_new_tokens_have_their_own_price() -> None:
    """60,000 tokens alone took 6 h, so 80,000 took 8 of the 10 busy hours; the other 2 were spent on prompts."""
    assert BILL.prompt_share == pytest.approx(0.2)
    prompt, completion = BILL.usd_per_token
    assert 80 * 0.2 / 40_000 == pytest.approx(prompt)
    assert 80 * 0.8 / 80_000 == pytest.approx(completion)


def test_a_price_nobody_measured_is_said_to_be_one() -> None:
    """Without the workers' split all tokens cost the same, and the notes say so."""
    bill = Bill(replace(METER, usage={"up_ms": HOUR, "busy_ms": HOUR, "open_ms": HOUR}))
    assert 1 == len(set(bill.usd_per_token))
    assert any("no worker has measured" in line for line in bill.notes)
    assert not any("no worker has measured" in line for line in BILL.notes)


@pytest.mark.parametrize("of", ["adapters", "agents"])
def test_parts_add_up_to_the_bill(of: str) -> None:
    """What adapters, or agents, are charged is the whole bill; an adapter that nobody asked has no line."""
    shares = getattr(BILL, of)
    assert pytest.approx(BILL.usd) == sum(share.estimated_usd for share in shares.values())
    assert "new@1" not in shares


def test_an_adapter_is_charged_for_its_tokens() -> None:
    """Three quarters of all tokens are three quarters of the bill; hit rate and load seconds stand beside."""
    share = BILL.adapters["cfo@1"]
    assert (750, 90_000, 0.8, 9.0) == (share.requests, share.tokens, share.hit_rate, share.load_s)
    assert pytest.approx(60.0) == share.estimated_usd


def test_baselines() -> None:
    """Two agents hold two GPUs for the ten hours; merged models swap 375 times of 36 s; personas read 200 more."""
    dedicated, swapping, persona, pool = BILL.baselines
    assert (2, 80.0) == (dedicated.gpus, dedicated.usd)
    assert 10 + 375 * 36 / 3600 == pytest.approx(swapping.work_hours)
    assert (2, 80.0) == (swapping.gpus, swapping.usd)  # 13.75 h of work in 10 h, 8 h a GPU
    assert 10 + 1000 * 200 * 2 / 40_000 == pytest.approx(persona.work_hours)
    assert 3 == persona.gpus  # 20 h of work: two GPUs would be full to the last second
    assert (2.0, 80.0, 0.08) == (pool.gpus, pool.usd, pool.usd_per_request)


def test_the_load_that_needs_a_second_gpu() -> None:
    """36 s of busy time a request, a GPU full at 80 %: more than 80 requests an hour are too many; 100 come."""
    assert (36.0, 80.0, 100.0) == (BILL.busy_s_per_request, BILL.requests_per_gpu_hour, BILL.requests_per_hour)
    assert "4.0 rows a step: a floor" in BILL.notes[-1]
    given = Bill(METER, Tariff(capacity=8.0))  # 80 new tokens a request
    assert 288.0 == pytest.approx(given.requests_per_gpu_hour)
    assert "the capacity you gave" in given.notes[-1]


def test_a_second_gpu_where_nothing_happened() -> None:
    """An empty pool owes nothing and divides by nothing."""
    bill = Bill(Meter({}, {}, {}))
    assert (0.0, 0.0, None, None) == (bill.usd, bill.usd_per_request, bill.idle_share, bill.requests_per_gpu_hour)
    assert "nothing to pay" in bill.notes[0]
    json.dumps(bill.document())


@pytest.mark.parametrize(
    ("field", "value"),
    [("gpu_usd_per_hour", -1), ("gpu_hours", 0), ("full_at", 0), ("full_at", 1.1), ("capacity", float("inf"))],
)
def test_a_tariff_that_makes_no_sense(field: str, value: float) -> None:
    with pytest.raises(InvalidRequest, match=field):
        Tariff(**{field: value})


def test_the_json_has_the_names_that_aos_asked_for() -> None:
    """total/prompt/completion tokens, estimated_usd, and agents with tokens and estimated_usd."""
    document = json.loads(json.dumps(BILL.document()))
    assert (120_000, 40_000, 80_000) == tuple(
        document[name] for name in ("total_tokens", "prompt_tokens", "completion_tokens")
    )
    assert 80.0 == document["estimated_usd"]
    assert {"tokens": 60_000, "estimated_usd": 40.0}.items() <= document["agents"]["board"].items()


def test_a_bill_of_a_period() -> None:
    """An earlier bill's counters are subtracted; another pool's are refused."""
    earlier = Meter.of(json.loads(json.dumps(BILL.document())))
    grown = {**METER.adapters["ceo@1"], "submitted": 260, "succeeded": 260}
    later = Meter({**METER.adapters, "ceo@1": grown}, METER.agents, {**METER.usage, "up_ms": 21 * HOUR})
    bill = Bill(later.since(earlier))
    assert (10, {"ceo@1"}, 1.0) == (bill.requests, set(bill.adapters), bill.gpu_hours)
    with pytest.raises(InvalidRequest, match="ceo@1 has counted less"):
        METER.since(later)
    with pytest.raises(InvalidRequest, match="no bill"):
        Meter.of({"agents": {}})


def test_the_plot(tmp_path: Path) -> None:
    """A PNG; its steps rise where the next GPU is needed."""
    assert [1, 1, 1, 2] == gpus_for(range(1, 5), 1 / 3)
    plot(BILL, tmp_path / "cost.png")
    assert b"\x89PNG" == (tmp_path / "cost.png").read_bytes()[:4]


def test_no_plot_without_matplotlib() -> None:
    """A base install says what to install."""
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from pathlib import Path; from lorapool.producer.operator.cost_plot import plot\nplot(None, Path('x.png'))"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'lorapool[plots]'" in outcome.stderr


async def test_the_meter_is_read_from_the_pool(client: Client, worker: CannedWorker) -> None:
    """Adapters and agents of all jobs, the base model too, are found by their counters."""
    await worker.queue.members.beat(
        "w9", {"up_ms": 7_200_000, "busy_ms": 3_600_000}, 5_000, boot="b", counted={"up_ms": 0}
    )
    jobs = [{"adapter": None, "prompt": "hello there", "agent": f"a-{n % 2}"} for n in range(4)]
    assert 4 == len(await client.gather(jobs, timeout=20))
    bill = await client.cost(Tariff(gpu_usd_per_hour=10.0))
    assert (4, 8, {"_base"}, {"a-0", "a-1"}) == (
        bill.requests,
        bill.prompt_tokens,
        set(bill.adapters),
        set(bill.agents),
    )
    assert (20.0, 10.0) == (bill.usd, bill.agents["a-0"].estimated_usd)


def test_cost_on_a_terminal(run: Run, threaded_worker: None, redis_url: str, pool_name: str) -> None:
    """A line for each rival; JSON has the counters; --since subtracts an earlier bill."""
    assert "no request has been answered" in run("cost").stderr
    with Redis.from_url(redis_url) as redis:
        redis.hset(PoolKeys(pool_name).usage, mapping={"up_ms": 3_600_000, "open_ms": 3_600_000, "busy_ms": 1_800_000})
    run("submit", "_base", "hello there", "--wait", "--agent", "board")
    shown = run("cost", "--gpu-price", "5").stdout
    for part in ("$5.00 at $5.00 a GPU hour", "50% idle", "swaps merged models"):
        assert part in shown
    assert {"board"} == set(_json(run("cost", "--json"))["agents"])


def test_cost_since(run: Run, threaded_worker: None, tmp_path: Path) -> None:
    """--since takes what --json wrote, and refuses another file in one line."""
    run("submit", "_base", "hello there", "--wait")
    (tmp_path / "then.json").write_text(run("cost", "--json").stdout)
    run("submit", "_base", "hello again my friend", "--wait")
    assert 4 == _json(run("cost", "--since", str(tmp_path / "then.json"), "--json"))["prompt_tokens"]
    (tmp_path / "other.json").write_text("[]")
    outcome = run("cost", "--since", str(tmp_path / "other.json"))
    assert (1, 1) == (outcome.exit_code, len(outcome.stderr.splitlines()))
