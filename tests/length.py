"""How long the tests with a choice last: briefly for ``make test``, longer for ``make test-all`` (LORAPOOL_LONG=1).

What only the longer form runs is marked ``long`` (tests/conftest.py leaves it out of the other). The hour-long forms
have commands and variables of their own: ``make chaos``, ``make fuzz``, ``make parity``.
"""

from __future__ import annotations

import os
from typing import TypeVar

LONG = os.environ.get("LORAPOOL_LONG", "") not in {"", "0"}
Amount = TypeVar("Amount", int, float)


def at_length(brief: Amount, long: Amount) -> Amount:
    """How many examples, seeds or seconds."""
    return long if LONG else brief
