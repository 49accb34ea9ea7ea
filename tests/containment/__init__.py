"""Containment: one thing goes wrong, and the rest goes on. One file a fault; real server, real worker processes.

How to write one. Ask for the fixture ``contained``; it gives a pool of its own, with a server and workers that the
test may break as it likes::

    async def test_something(contained: Contain) -> None:
        '''What the fault is, and what it costs whom.'''
        async with contained(workers=4, step_s=0.02) as pool:   # lease_s, slots, … : as WorkerConfig
            await pool.calm()                                   # the bystanders alone: what is normal here and now
            async with pool.bystanders() as bystanders:         # light jobs of other agents, sent steadily
                ...                                             # the fault, and what the test claims of it
                await pool.left(pool.workers["w1"], -9)         # a worker that may go, and its exit status
            bystanders.judge(factor=1.5)                        # all succeeded, rightly; p95 within 1.5 × calm + slack

``pool.client`` is an agent's client and ``pool.redis`` a raw one, ``pool.url`` the server's. ``pool.start("w9", {…})``
starts one more worker, with another fake model or environment: tests.fleet.fake_worker; ``pool.adapters("a", "b")``
registers adapters; ``pool.enter(…)`` keeps any other process until the end. Right tokens: tests.fake_worker.expected;
prompts that break things: POISON, BROKEN, UNREADABLE.

Leaving ``contained`` judges the rest: every worker lives, but those seen by ``pool.left``; a check of the queue finds
nothing; each worker exits with 0 at SIGTERM. It waits for no operator, and does nothing that an operator would.

Quick forms take a few seconds and must hold beside four busy processes: claim counts and orders, or times with ceilings
far above what is normal. ``LONG`` is true for ``make chaos`` (LORAPOOL_CONTAINMENT_LONG=1), for longer forms of the
same. Each judgement prints a line; all stand together at the end of the run.
"""

import os

LONG = os.environ.get("LORAPOOL_CONTAINMENT_LONG", "") not in {"", "0"}
