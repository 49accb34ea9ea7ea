"""The claim protocol keeps every invariant under random operations (the machine is in claim_machine.py).

``make test-all`` tries more of them, and LORAPOOL_MACHINE_EXAMPLES multiplies how many: ``make chaos`` does.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any, ClassVar

from fakeredis import FakeAsyncRedis, FakeServer
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.settings import redis_settings
from tests.length import at_length
from tests.shared.queue.claim_bench import OPERATIONS
from tests.shared.queue.claim_machine import ClaimMachine
from tests.shared.queue.quick_fake import scripts_compiled_once

# Shrinking would take longer than a test may: the failing example is printed as it was found.
PHASES = [phase for phase in Phase if phase is not Phase.shrink]
ALWAYS = {"enqueue", "claim", "settle", "cancel", "tick", "fsck"}  # lost on a real server, which has fewer examples
OFTEN = {*ALWAYS, "renew"}  # the others' are lost in the long form
TIMES = int(os.environ.get("LORAPOOL_MACHINE_EXAMPLES", "1"))
EXAMPLES, QUICKER = 36 * TIMES, at_length(18, 24) * TIMES
COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True, "phases": PHASES}


class OnFake(ClaimMachine):
    lost: ClassVar[Counter[str]] = Counter()

    async def connect(self) -> Any:
        return FakeAsyncRedis(server=FakeServer())


def test_invariants_on_a_fake_server() -> None:
    """Every invariant of the claim protocol holds after every step, whatever the order of operations and whichever
    replies are lost."""
    with scripts_compiled_once():
        run_state_machine_as_test(OnFake, settings=settings(max_examples=EXAMPLES, stateful_step_count=40, **COMMON))
    print(f"replies lost and asked for again: {dict(OnFake.lost.most_common())}")
    assert (set(OPERATIONS) if TIMES > 1 else OFTEN) <= set(OnFake.lost)


def test_invariants_on_a_real_server(redis_url: str) -> None:
    """The same on a real server, where scripts run as they will."""

    class OnReal(ClaimMachine):
        lost: ClassVar[Counter[str]] = Counter()

        async def connect(self) -> Any:
            client = connect(redis_settings(redis_url))
            await client.flushall()
            return client

    run_state_machine_as_test(OnReal, settings=settings(max_examples=QUICKER, stateful_step_count=40, **COMMON))
    print(f"replies lost and asked for again: {dict(OnReal.lost.most_common())}")
    assert set(OnReal.lost) >= ALWAYS
