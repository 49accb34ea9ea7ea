from __future__ import annotations

import asyncio
from hashlib import sha256
from typing import Any

import pytest

from lorapool.shared.access.audit import Audit
from lorapool.shared.access.key import Key, KeyUse
from lorapool.shared.access.key_book import KeyBook
from lorapool.shared.errors import InvalidRequest, KeyConflict, UnknownKey
from lorapool.shared.queue.protocol import Settlement
from tests.shared.conftest import START_MS, Bench

DAY_MS = 24 * 3_600_000


async def test_a_secret_finds_its_key(bench: Bench, keys: KeyBook) -> None:
    """What was said when a key was added is what its secret finds."""
    secret = await keys.add(
        "board-7", agent="board", adapters=["cfo*", "_base"], role="operator", jobs_per_minute=60,
        tokens_per_day=1_000_000, window=3,
    )  # fmt: skip
    expected = Key(
        name="board-7", agent="board", adapters=("cfo*", "_base"), role="operator", jobs_per_minute=60,
        tokens_per_day=1_000_000, window=3, created_ms=START_MS,
    )  # fmt: skip
    assert expected == await keys.find(secret) == await keys.get("board-7")
    assert [KeyUse(expected, 0, 0)] == await keys.list()


async def test_a_key_is_its_own_agent(keys: KeyBook) -> None:
    """Without more, a key's jobs are counted under its name, and it may ask every adapter without limit."""
    found = await keys.find(await keys.add("board-7"))
    assert found is not None
    assert ("board-7", ("*",), "agent", None, None, None) == (
        found.agent, found.adapters, found.role, found.jobs_per_minute, found.tokens_per_day, found.window,
    )  # fmt: skip


async def test_only_hashes_are_kept(bench: Bench, keys: KeyBook) -> None:
    """Nowhere in Redis stands a secret, or a part of it; its sha256 does."""
    secret = await keys.add("board-7")
    everything = ""
    for key in await bench.redis.keys("*"):
        everything += repr(await bench.redis.dump(key)) + repr(key)
        if await bench.redis.type(key) == b"hash":
            everything += repr(await bench.redis.hgetall(key))
    assert secret[3:15] not in everything
    assert sha256(secret.encode()).hexdigest() in everything


async def test_secrets_are_long_and_differ(keys: KeyBook) -> None:
    """256 bits of a URL's alphabet after ``lp-``; no two alike."""
    secrets = [await keys.add(f"k{n}") for n in range(50)]
    assert 50 == len(set(secrets))
    assert {46} == {len(secret) for secret in secrets}
    assert all(secret.startswith("lp-") and secret.isascii() for secret in secrets)


@pytest.mark.parametrize(
    "wrong", ["", "lp-", "lp-" + "x" * 43, "lp-" + "é" * 43, "x" * 100_000, "lp-" + "x" * 43 + "\n", "\ud800"]
)
async def test_what_is_no_secret_finds_nothing(keys: KeyBook, wrong: str) -> None:
    await keys.add("board-7")
    assert None is await keys.find(wrong)


async def test_a_revoked_key_finds_nothing(bench: Bench, keys: KeyBook) -> None:
    """At once; it stays listed for 30 days, with when it was."""
    secret = await keys.add("board-7")
    await bench.set_clock(START_MS + 5)
    await keys.revoke("board-7")
    assert None is await keys.find(secret)
    assert START_MS + 5 == (await keys.get("board-7")).revoked_ms
    assert 29 * DAY_MS < await bench.redis.pttl(bench.keys.key("board-7")) <= 30 * DAY_MS
    await keys.revoke("board-7")
    assert START_MS + 5 == (await keys.get("board-7")).revoked_ms


async def test_a_name_is_one_keys(keys: KeyBook) -> None:
    """Until it is revoked; then a new key may have it, and the old secret stays worthless."""
    old = await keys.add("board-7")
    with pytest.raises(KeyConflict, match="board-7"):
        await keys.add("board-7", agent="other")
    await keys.revoke("board-7")
    new = await keys.add("board-7", role="operator")
    assert None is await keys.find(old)
    assert "operator" == (await keys.find(new)).role
    assert -1 == await keys._server.command("PTTL", keys._keys.key("board-7"))


async def test_two_that_add_one_name(keys: KeyBook) -> None:
    """At the same moment: one gets it."""
    answers = await asyncio.gather(*(keys.add("board-7") for _ in range(8)), return_exceptions=True)
    [secret] = [answer for answer in answers if isinstance(answer, str)]
    assert 7 == sum(isinstance(answer, KeyConflict) for answer in answers)
    assert "board-7" == (await keys.find(secret)).name


async def test_a_repeat_adds_nothing(bench: Bench, keys: KeyBook, audit: Audit) -> None:
    """A call whose reply was lost is sent again: the same key, and one act in the audit stream."""
    scripts: Any = keys._scripts
    run = scripts.run

    async def twice(name: str, *args: Any) -> Any:
        first = await run(name, *args)
        assert first == await run(name, *args)
        return first

    scripts.run = twice
    secret = await keys.add("board-7")
    assert "board-7" == (await keys.find(secret)).name
    await keys.revoke("board-7")
    assert ["key revoked", "key added"] == [act.what for act in await audit.recent()]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": "board 7"}, "name"),
        ({"name": "x" * 129}, "name"),
        ({"agent": ""}, "agent"),
        ({"agent": "{}"}, "agent"),
        ({"adapters": []}, "adapters"),
        ({"adapters": ["cfo *"]}, "adapters"),
        ({"adapters": ["c" * 129]}, "adapters"),
        ({"adapters": ["a"] * 65}, "adapters"),
        ({"role": "king"}, "role"),
        ({"jobs_per_minute": 0}, "jobs_per_minute"),
        ({"tokens_per_day": 1.5}, "tokens_per_day"),
        ({"tokens_per_day": 10**15}, "tokens_per_day"),
        ({"window": 0}, "window"),
    ],
)
async def test_what_is_no_key_is_refused(bench: Bench, keys: KeyBook, wrong: dict[str, Any], says: str) -> None:
    """By the name of what is wrong, and nothing is stored."""
    given = {"name": "board-7", **wrong}
    with pytest.raises(InvalidRequest, match=says):
        await keys.add(**given)
    assert not await bench.redis.exists(bench.keys.one("keys"))


async def test_an_operator_is_not_made_by_writing_to_the_partition(bench: Bench, keys: KeyBook) -> None:
    """Agents with a Redis user may write there, and not among the pool's own keys: what they write themselves is no
    operator's key, nor becomes one; one that was revoked leaves nothing there."""
    forged = f"lp-{'f' * 43}"
    fields = (await bench.redis.hgetall(bench.keys.key("ops"))) if await keys.add("ops", role="operator") else {}
    fields |= {b"name": b"me", b"digest": sha256(forged.encode()).hexdigest().encode()}
    await bench.redis.hset(bench.keys.key("me"), mapping=fields)
    await bench.redis.hset(bench.keys.one("secrets"), fields[b"digest"], "me")
    assert None is await keys.find(forged)
    mine = await keys.add("board-7")
    await bench.redis.hset(bench.keys.key("board-7"), "role", "operator")
    assert None is await keys.find(mine)
    await keys.revoke("ops")
    assert 0 == await bench.redis.scard(bench.queue.connection.keys.operators)


async def test_an_unknown_key(keys: KeyBook) -> None:
    for work in (keys.revoke("nobody"), keys.get("nobody")):
        with pytest.raises(UnknownKey, match=r"'nobody'.*lorapool keys ls"):
            await work


async def test_a_pool_stays_closed(bench: Bench, keys: KeyBook) -> None:
    """It has no keys at first; once it has had one, it never again counts as one without."""
    assert not await keys.any()
    await keys.add("board-7")
    await keys.revoke("board-7")
    assert await keys.any()
    await bench.redis.delete(bench.keys.key("board-7"))  # 30 days later
    assert [] == await keys.list()
    assert await keys.any()


async def test_names_of_keys_long_gone_are_dropped(bench: Bench, keys: KeyBook) -> None:
    """By whoever adds the next one."""
    await keys.add("old")
    await keys.revoke("old")
    await bench.redis.delete(bench.keys.key("old"))
    await keys.add("new")
    assert [b"new"] == await bench.redis.zrange(bench.keys.one("keys"), 0, -1)


async def test_more_keys_than_a_call_lists(bench: Bench, keys: KeyBook) -> None:
    """All come, each once, oldest first; a damaged record is stepped over."""
    for n in range(300):
        await bench.set_clock(START_MS + n)
        await keys.add(f"k{n}")
    await bench.redis.hset(bench.keys.key("k7"), "role", "king")
    assert [f"k{n}" for n in range(300) if n != 7] == [use.key.name for use in await keys.list()]


async def test_the_list_tells_what_was_used(bench: Bench, keys: KeyBook) -> None:
    """Jobs of this minute; tokens of this day: reserved for those that run, used by those that ended."""
    await keys.add("board-7")
    for _ in range(2):
        await bench.enqueue(key="board-7", params={"max_new_tokens": 100}, prompt="x" * 40)
    [ended, _] = await bench.claim()
    await bench.queue.settle([Settlement(ended.job_id, ended.lease, "succeeded", prompt_tokens=9, completion_tokens=3)])
    [use] = await keys.list()
    assert (2, 110 + 12) == (use.jobs, use.tokens)
    await bench.set_clock(START_MS + 60_000)
    [use] = await keys.list()
    assert (0, 122) == (use.jobs, use.tokens)
    await bench.set_clock(START_MS + DAY_MS)
    [use] = await keys.list()
    assert (0, 0) == (use.jobs, use.tokens)
