"""Junk in every key of a live pool: a third of the minute."""

from __future__ import annotations

from tests.fuzz import live
from tests.fuzz.minute import SEED, judge


async def test_junk_in_every_key() -> None:
    """No worker leaves, bystanders get the right tokens, and a client's calls end with answers or typed errors."""
    judge([await live.fuzzed(15.0, SEED)])
