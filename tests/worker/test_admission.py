"""What Admission remembers of adapters."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from redis.asyncio import Redis

from lorapool.shared.catalog import AdapterRecord, Catalog
from lorapool.shared.prompt_format import PromptFormat
from lorapool.worker.adapters import AdapterCache
from lorapool.worker.admission import Admission
from tests.fake_runner import FakeStore
from tests.fake_worker import FakeWeights


async def test_a_version_that_moved_is_found_where_it_is(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removed, and registered again at another place: a worker that knew it learns of that after a while."""
    catalog = Catalog(redis, "test")
    cache = AdapterCache(FakeStore(1), lambda source: FakeWeights(source.digest), 100)
    engine = SimpleNamespace(order=lambda work: work())
    admission = Admission(None, engine, cache, None, catalog, None, max_model_len=8)
    record = AdapterRecord(id="cfo", version="1", digest="d" * 64, uri="file:///old")
    await catalog.register(record)
    await catalog.decide("cfo@1", "ready")
    await admission._know("cfo@1")
    await catalog.remove("cfo@1")
    await catalog.register(record.model_copy(update={"uri": "file:///new"}))
    await catalog.decide("cfo@1", "ready")
    assert "file:///old" == (await admission._know("cfo@1")).uri
    monkeypatch.setattr("lorapool.worker.admission.KNOWN_S", 0.0)
    assert "file:///new" == (await admission._know("cfo@1")).uri
    assert "file:///new" == cache._sources["cfo@1"].uri
    cache.close()


async def test_a_version_loaded_before_its_verdict_is_looked_at_again(redis: Redis) -> None:
    """The verdict may tell its prompt format; from then on the record is asked for once."""
    catalog = Catalog(redis, "test")
    engine = SimpleNamespace(order=lambda _work: None)
    admission = Admission(None, engine, None, None, catalog, None, max_model_len=8)
    await catalog.register(AdapterRecord(id="cfo", version="1", digest="d" * 64, uri="s3://bucket/cfo"))
    await admission.prefetch("cfo@1")
    form = PromptFormat(kind="raw")
    await catalog.decide("cfo@1", "ready", facts={"prompt_format": form})
    assert form == (await admission._know("cfo@1")).prompt_format
    await redis.flushall()
    assert form == (await admission._know("cfo@1")).prompt_format
