"""A minute of the fuzzer, for the suite: a part of the targets a test, by a seed that is new each time and told."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable

from tests.fuzz.campaign import Tally, campaign, named, table

SEED = os.environ.get("LORAPOOL_FUZZ_SEED") or secrets.token_hex(4)


def unharmed(seconds: float, *names: str) -> None:
    """These targets, for so long: nothing is found."""
    judge(campaign(named(names), seconds, SEED))


def judge(tallies: Iterable[Tally]) -> None:
    """Fails with the table and the lines that repeat each finding."""
    found = list(tallies)
    told = "\n".join(table(found))
    print(f"LORAPOOL_FUZZ_SEED={SEED}\n{told}")
    assert not any(tally.findings for tally in found), f"seed {SEED}\n{told}"
