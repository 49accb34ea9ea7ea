"""A minute of the fuzzer for ``make test-all``, a fifth of one for ``make test``: a part of the targets a test, by a
seed that is new each time and printed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable

from tests.fuzz.campaign import Tally, campaign, named, table
from tests.length import at_length

SHARE = at_length(0.2, 1.0)
SEED = os.environ.get("LORAPOOL_FUZZ_SEED") or secrets.token_hex(4)


def unharmed(seconds: float, *names: str) -> None:
    """These targets, for so many seconds of the minute: nothing is found."""
    judge(campaign(named(names), seconds * SHARE, SEED))


def judge(tallies: Iterable[Tally]) -> None:
    """Fails with the table and the lines that repeat each finding."""
    found = list(tallies)
    told = "\n".join(table(found))
    print(f"LORAPOOL_FUZZ_SEED={SEED}\n{told}")
    assert not any(tally.findings for tally in found), f"seed {SEED}\n{told}"
