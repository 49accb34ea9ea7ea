"""The tuning benchmark's own arithmetic and picture; a measurement takes minutes and is not made here."""

from __future__ import annotations

from pathlib import Path

from benchmarks.tuning import NEW_TOKENS, POINTS, Sweep, summary
from benchmarks.tuning_plot import draw
from lorapool.producer import FinishReason, Result, Timings, Usage


def result(first_ms: int, total_ms: int) -> Result:
    return Result(
        job_id="0.j", text="", finish_reason=FinishReason.LENGTH, agent="a", attempts=1, worker="w",
        usage=Usage(prompt_tokens=5, completion_tokens=NEW_TOKENS), adapter="cfo@1", digest="", device="cpu",
        dtype="float32", seed=0, resident=True, token_ids=(), logprobs=None,
        timings=Timings(queued_ms=0, load_ms=0, first_token_ms=first_ms, total_ms=total_ms),
    )  # fmt: skip


def test_a_point_counts_all_tokens_over_the_whole_time() -> None:
    """Tokens a second of all requests together; the pace of a row leaves out its first token."""
    point = summary([result(100, 100 + 23 * 10), result(100, 100 + 23 * 30), result(100, 100 + 23 * 20)], took_s=2.0)
    assert (3 * NEW_TOKENS / 2, 100, 20) == (
        point["tokens_per_s"], point["first_token_ms_p50"], point["ms_per_token_p50"],
    )  # fmt: skip


def test_both_sweeps_are_drawn(tmp_path: Path) -> None:
    sweeps = {
        sweep: {
            "points": [{"value": v, "tokens_per_s": 9.0, "ms_per_token_p50": 1.0, "loads": 2} for v in POINTS[sweep]]
        }
        for sweep in Sweep
    }
    draw(sweeps, tmp_path / "t.png")
    assert b"\x89PNG" == (tmp_path / "t.png").read_bytes()[:4]
