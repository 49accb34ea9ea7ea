from __future__ import annotations

from lorapool.shared.access.audit import MAX_NAME, MAX_NOTE, Act, Audit
from lorapool.shared.access.key_book import KeyBook
from lorapool.shared.scripts import records
from lorapool.shared.server.terms import AUDIT_MAX
from tests.shared.conftest import Bench


async def test_an_act_is_told(audit: Audit) -> None:
    """Who did what on what, when by the server's clock, and with what outcome; the newest first."""
    before = await audit._server.now_ms()
    await audit.record("ops", "paused", "cfo@1")
    await audit.record("cli", "redriven", "0.j1", outcome="refused: QueueFull", note="one of 12")
    second, first = await audit.recent()
    assert Act(first.at_ms, "ops", "paused", "cfo@1", "done", "") == first
    assert Act(second.at_ms, "cli", "redriven", "0.j1", "refused: QueueFull", "one of 12") == second
    assert before <= first.at_ms <= second.at_ms <= await audit._server.now_ms()


async def test_keys_added_and_revoked_are_told(keys: KeyBook, audit: Audit) -> None:
    """By whom, and what they may; never the secret."""
    secret = await keys.add("board-7", adapters=["cfo*"], jobs_per_minute=60, by="ops")
    await keys.revoke("board-7", by="cli")
    revoked, added = await audit.recent()
    assert ("cli", "key revoked", "board-7", "done") == revoked[1:5]
    assert ("ops", "key added", "board-7", "done") == added[1:5]
    assert {"agent=board-7", "adapters=cfo*", "role=agent", "jobs_per_minute=60"} == set(added.note.split())
    assert secret not in repr(await audit.recent())


async def test_an_act_is_told_once(bench: Bench, audit: Audit) -> None:
    """Its call, sent again after a lost reply, adds nothing."""
    act = records.Audit(id="a", who="ops", what="paused", on="cfo@1", outcome="done", note="")
    for again in (act, act, act._replace(id="b"), act):
        assert 1 == await bench.queue._scripts.run("audit", *again)
    assert 2 == len(await audit.recent())


async def test_the_stream_is_bounded(bench: Bench, audit: Audit) -> None:
    """About 10,000 acts are kept, and long texts are cut."""
    key = bench.keys.one("audit")
    pipe = bench.redis.pipeline(transaction=False)
    for _ in range(AUDIT_MAX + 500):
        pipe.xadd(key, {"id": "x"})
    await pipe.execute()
    await audit.record("w" * 5000, "x" * 5000, "y" * 5000, outcome="o" * 5000, note="n\0" * 5000)
    assert await bench.redis.xlen(key) <= AUDIT_MAX + 200
    [act] = await audit.recent(1)
    assert [MAX_NAME] * 3 + [MAX_NOTE] * 2 == [len(text) for text in act[1:]]


async def test_acts_that_cannot_be_read_are_stepped_over(bench: Bench, audit: Audit) -> None:
    await audit.record("ops", "paused", "cfo@1")
    await bench.redis.xadd(bench.keys.one("audit"), {"who": b"\xff"})
    assert ["paused"] == [act.what for act in await audit.recent(5000)]


async def test_a_full_server_takes_acts(audit: Audit, bench: Bench) -> None:
    """Audit and revocation are no new work."""
    scripts = bench.queue._scripts
    assert "#!lua\n" == scripts["key_add"].text[:6]
    for name in ("audit", "key_revoke", "key_find", "key_list"):
        assert scripts[name].text.startswith("#!lua flags=allow-oom\n")
