"""How long a worker has had its device and how long it computed."""

from __future__ import annotations

from lorapool.worker.engine.busy_time import BusyTime


def test_steps_that_read_no_prompt_are_summed_apart() -> None:
    """Busy time is all steps; the price of a new token comes from steps that only drew tokens."""
    sheet = BusyTime()
    sheet.add_step(0.5, prefill_tokens=100, decode_tokens=3)
    sheet.add_step(0.2, prefill_tokens=0, decode_tokens=4)
    totals = sheet.totals()
    assert (700, 200, 4) == (totals["busy_ms"], totals["decode_only_ms"], totals["decode_only_tokens"])


def test_the_device_is_held_from_before_the_model_was_loaded() -> None:
    """The time that loading took counts as held, not as busy."""
    totals = BusyTime(had_s=60.0).totals()
    assert 60_000 <= totals["up_ms"] < 120_000
    assert 0 == totals["busy_ms"]
