"""Aliases move atomically, come back, and know their own repeats."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from lorapool.shared.catalog.aliases import Aliases, alias_of
from lorapool.shared.catalog.catalog import AdapterRecord, Catalog
from lorapool.shared.connection import PoolConnection
from lorapool.shared.errors import (
    AdapterClosed,
    AdapterConflict,
    AdapterInUse,
    AdapterNotReady,
    AdapterRefused,
    InvalidRequest,
    UnknownAdapter,
)
from lorapool.shared.scripts import Scripts
from tests.parts import catalog_of


@pytest.fixture
async def catalog(redis: Redis) -> Catalog:
    """cfo@1 to cfo@4, ready."""
    catalog = catalog_of(redis, "test")
    for version in "1234":
        await add(catalog, version)
    return catalog


async def add(catalog: Catalog, version: str, verdict: str = "ready", **fields: object) -> None:
    record = AdapterRecord(id="cfo", version=version, digest=version * 64, uri="file:///cfo", **fields)
    await catalog.register(record)
    if verdict != "pending":
        await catalog.decide(record.ref, verdict)


async def test_a_rollback_goes_back_one_move_at_a_time(catalog: Catalog) -> None:
    """Each takes the name one target further back; with none left it stays where it is, and says so."""
    names = catalog.names
    assert ["", "cfo@1", "cfo@2"] == [await names.move("CEO.Leadership", f"cfo@{n}") for n in "123"]
    assert ("cfo@3", "cfo@2") == await names.rollback("ceo.leadership")
    assert ("cfo@2", "cfo@1") == await names.rollback("ceo.leadership")
    with pytest.raises(InvalidRequest, match="stays at cfo@1"):
        await names.rollback("ceo.leadership")
    assert {"ceo.leadership": "cfo@1"} == await names.all()
    moves = [(m.how, m.before, m.after) for m in await names.history("ceo.leadership")]
    assert [("rollback", "cfo@2", "cfo@1"), ("rollback", "cfo@3", "cfo@2"), ("set", "cfo@2", "cfo@3")] == moves[:3]


async def test_a_repeat_after_a_lost_reply_moves_nothing(catalog: Catalog, redis: Redis) -> None:
    """The same call again returns what the first did, also when somebody else has moved the name meanwhile."""
    names = Aliases(PoolConnection(redis, "test"))
    names._scripts = twice = Twice(names._scripts)  # type: ignore[assignment]  # all that Aliases uses of Scripts
    for version in "123":
        await names.move("cfo", f"cfo@{version}")
    assert ("cfo@3", "cfo@2") == await names.rollback("cfo")
    assert {"cfo": "cfo@2"} == await names.all()
    twice.between = lambda: catalog.names.move("cfo", "cfo@4")
    assert ("cfo@2", "cfo@1") == await names.rollback("cfo")
    assert {"cfo": "cfo@4"} == await names.all()
    assert "cfo@4" == await names.move("cfo", "cfo@1")
    assert {"cfo": "cfo@4"} == await names.all()


class Twice:
    """Sends every script twice, as after a lost reply; ``between`` happens before the repeat."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self.between: Callable[[], Awaitable[object]] = lambda: asyncio.sleep(0)

    async def run(self, name: str, *args: str) -> list[bytes]:
        first: list[bytes] = await self._scripts.run(name, *args)
        await self.between()
        assert first == await self._scripts.run(name, *args)
        return first


async def test_concurrent_rollbacks_each_take_one_step(catalog: Catalog) -> None:
    """Two operators at once: two steps back, none lost, none doubled."""
    for version in "1234":
        await catalog.names.move("cfo", f"cfo@{version}")
    steps = await asyncio.gather(*(catalog.names.rollback("cfo") for _ in range(2)))
    assert {("cfo@4", "cfo@3"), ("cfo@3", "cfo@2")} == set(steps)


async def test_a_deleted_alias_comes_back(catalog: Catalog) -> None:
    """Deleting forgets nothing."""
    await catalog.names.move("cfo", "cfo@1")
    assert "cfo@1" == await catalog.names.delete("cfo")
    assert {} == await catalog.names.all()
    with pytest.raises(UnknownAdapter, match="no alias 'cfo'"):
        await catalog.names.delete("cfo")
    assert ("", "cfo@1") == await catalog.names.rollback("cfo")


async def test_a_verdict_that_moves_an_alias_can_be_rolled_back(catalog: Catalog) -> None:
    """Registering with an alias leaves the same trail as moving it by hand."""
    await add(catalog, "5", aliases=("boss",))
    await add(catalog, "6", aliases=("boss",))
    assert ("cfo@6", "cfo@5") == await catalog.names.rollback("boss")


async def test_a_name_in_use_moves_only_to_what_serves(catalog: Catalog) -> None:
    """Pending, refused, removed and unknown versions take no name away; a new name may point at a pending one."""
    await catalog.names.move("boss", "cfo@1")
    await add(catalog, "5", "pending")
    await add(catalog, "6", "refused")
    await catalog.remove("cfo@4")
    for ref, error in (
        ("cfo@5", AdapterNotReady),
        ("cfo@6", AdapterRefused),
        ("cfo@4", AdapterClosed),
        ("cfo@9", UnknownAdapter),
    ):
        with pytest.raises(error, match=ref):
            await catalog.names.move("boss", ref)
    assert "" == await catalog.names.move("new", "cfo@5")
    assert {"boss": "cfo@1", "new": "cfo@5"} == await catalog.names.all()


async def test_a_rollback_passes_over_what_is_gone(catalog: Catalog) -> None:
    """A removed version is no place to go back to."""
    for version in "123":
        await catalog.names.move("boss", f"cfo@{version}")
    await catalog.remove("cfo@2")
    assert ("cfo@3", "cfo@1") == await catalog.names.rollback("boss")


async def test_the_history_is_bounded(catalog: Catalog, redis: Redis) -> None:
    """A name moved for ever keeps its latest 32 moves and targets."""
    for n in range(40):
        await catalog.names.move("boss", f"cfo@{n % 2 + 1}")
    assert 32 == len(await catalog.names.history("boss"))
    assert 32 == await redis.llen("lp:{test}:before:boss")


async def test_what_an_alias_means_is_not_removed(catalog: Catalog) -> None:
    """The names in the way are told."""
    await catalog.names.move("boss", "cfo@2")
    await catalog.names.move("money", "cfo@2")
    with pytest.raises(AdapterInUse, match="boss, money") as caught:
        await catalog.remove("cfo@2")
    assert ("boss", "money") == caught.value.aliases
    assert "ready" == (await catalog.get("cfo@2")).status


async def test_a_removed_ref_stays_taken(catalog: Catalog) -> None:
    """Its id means the version before; other content is refused its ref, the same content may come back."""
    assert "cfo@4" == (await catalog.resolve("cfo")).ref
    await catalog.remove("cfo@4")
    await catalog.remove("cfo@4")
    assert "cfo@3" == (await catalog.resolve("cfo")).ref
    with pytest.raises(AdapterConflict):
        await catalog.register(AdapterRecord(id="cfo", version="4", digest="f" * 64, uri="file:///other"))
    await add(catalog, "4")
    assert "ready" == (await catalog.get("cfo@4")).status
    assert "cfo@4" == (await catalog.resolve("cfo")).ref


async def test_an_id_without_versions_means_nothing(redis: Redis) -> None:
    """The last one removed takes the id along."""
    catalog = catalog_of(redis, "test")
    await add(catalog, "1")
    await catalog.remove("cfo@1")
    with pytest.raises(UnknownAdapter):
        await catalog.resolve("cfo")


@pytest.mark.parametrize(
    ("agent", "purpose", "expected"),
    [("CEO", None, "ceo"), ("CEO", "leadership", "ceo.leadership"), ("ceo-agent", "Q2.2026", "ceo-agent.q2.2026")],
)
def test_the_alias_of_an_agent_and_its_purpose(agent: str, purpose: str | None, expected: str) -> None:
    """Joined by a dot, case-folded."""
    assert expected == alias_of(agent, purpose)


@pytest.mark.parametrize(("agent", "purpose"), [("", None), ("a b", None), ("ceo", ""), ("ceo", "x/y")])
def test_no_alias_of_what_is_no_name(agent: str, purpose: str | None) -> None:
    with pytest.raises(InvalidRequest):
        alias_of(agent, purpose)
