"""A minute of the fuzzer for ``make test``: a part of the targets a test, by a seed that is new each time."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable

from tests.fuzz.campaign import Tally, campaign, named, table

SEED = os.environ.get("LORAPOOL_FUZZ_SEED") or secrets.token_hex(4)


def unharmed(seconds: float, *names: str) -> None:
    """These targets, for so many seconds of the minute: nothing is found."""
    judge(campaign(named(names), seconds, SEED))


def judge(tallies: Iterable[Tally]) -> None:
    """Fails with the table and the lines that repeat each finding."""
    tallies = list(tallies)
    report = "\n".join(table(tallies))
    print(f"LORAPOOL_FUZZ_SEED={SEED}\n{report}")
    assert not any(tally.findings for tally in tallies), f"seed {SEED}\n{report}"
