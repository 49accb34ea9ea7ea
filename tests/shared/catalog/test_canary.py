"""A canary takes a part of an alias's jobs, always the same ones, until the alias moves."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from lorapool.shared.catalog.aliases import Canary
from lorapool.shared.catalog.catalog import AdapterRecord, Catalog
from lorapool.shared.errors import (
    AdapterInUse,
    AdapterNotReady,
    AdapterRefused,
    InvalidRequest,
    UnknownAdapter,
)
from lorapool.shared.server.keys import new_job_id
from tests.parts import catalog_of


@pytest.fixture
async def catalog(redis: Redis) -> Catalog:
    """boss points at cfo@1; cfo@2 and ceo@1 are ready, cfo@3 is pending, cfo@4 refused."""
    catalog = catalog_of(redis, "test")
    for ref, verdict in (
        ("cfo@1", "ready"),
        ("cfo@2", "ready"),
        ("ceo@1", "ready"),
        ("cfo@3", ""),
        ("cfo@4", "refused"),
    ):
        adapter_id, _, version = ref.partition("@")
        await catalog.register(AdapterRecord(id=adapter_id, version=version, digest=version * 64, uri="file:///x"))
        if verdict:
            await catalog.decide(ref, verdict)
    await catalog.names.move("boss", "cfo@1")
    return catalog


async def test_a_name_with_a_canary_says_so(catalog):
    """Where it is looked up and where canaries are listed; ref and id of the same version have none."""
    assert "" == await catalog.names.canary("Boss", "cfo@2", 25)
    assert ("cfo@1", "25 cfo@2") == ((found := await catalog.resolve("BOSS")).ref, found.canary)
    assert {"boss": Canary(25, "cfo@2")} == await catalog.names.canaries()
    assert ["", ""] == [(await catalog.resolve(name)).canary for name in ("cfo@1", "cfo")]
    assert [("canary", "", "cfo@2")] == [(m.how, m.before, m.after) for m in (await catalog.names.history("boss"))[:1]]


@pytest.mark.parametrize("end", ["zero", "move", "rollback", "delete"])
async def test_it_ends(catalog, end):
    """By 0, and with any move of the alias, so that a rollback leaves nothing of it."""
    await catalog.names.move("boss", "cfo@2")
    await catalog.names.canary("boss", "cfo@1", 50)
    names = catalog.names
    calls = {"zero": names.canary("boss", "cfo@1", 0), "move": names.move("boss", "cfo@1"),
             "rollback": names.rollback("boss"), "delete": names.delete("boss")}  # fmt: skip
    for name, call in calls.items():
        if name == end:
            await call
        else:
            call.close()
    assert {} == await names.canaries()


@pytest.mark.parametrize(
    ("error", "name", "ref"),
    [
        (UnknownAdapter, "nobody", "cfo@2"),
        (UnknownAdapter, "boss", "cfo@9"),
        (AdapterNotReady, "boss", "cfo@3"),
        (AdapterRefused, "boss", "cfo@4"),
        (InvalidRequest, "boss", "ceo@1"),
        (InvalidRequest, "boss", "cfo@1"),
    ],
)
async def test_only_a_ready_version_of_the_same_adapter_is_one(catalog, error, name, ref):
    """All else is refused, and nothing changes: who may ask an alias may ask its canary."""
    with pytest.raises(error):
        await catalog.names.canary(name, ref, 10)
    assert {} == await catalog.names.canaries()


@pytest.mark.parametrize("percent", [-1, 101, 0.5, True])
async def test_a_percentage_is_one(catalog, percent):
    """A whole number from 0 to 100."""
    with pytest.raises(InvalidRequest, match="percent"):
        await catalog.names.canary("boss", "cfo@2", percent)


async def test_a_canary_is_in_use(catalog):
    """Its version is not removed while it takes jobs."""
    await catalog.names.canary("boss", "cfo@2", 10)
    with pytest.raises(AdapterInUse, match="boss"):
        await catalog.remove("cfo@2")


def test_the_part_is_what_was_asked_for():
    """Of many ids about that percentage go there; each always the same way, as a bare id or a full one."""
    ids = [new_job_id() for _ in range(4000)]
    takes = [Canary(25, "cfo@2").takes(job) for job in ids]
    assert 0.2 < sum(takes) / len(takes) < 0.3
    assert takes == [Canary(25, "cfo@2").takes(f"0.{job}") for job in ids]
    assert (0, 4000) == tuple(sum(Canary(percent, "x").takes(job) for job in ids) for percent in (0, 100))
