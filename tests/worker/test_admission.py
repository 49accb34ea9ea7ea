"""What Admission remembers of adapters."""

from __future__ import annotations

from types import SimpleNamespace

from redis.asyncio import Redis

from lorapool.shared.catalog import AdapterRecord, Catalog
from lorapool.shared.prompt_format import PromptFormat
from lorapool.worker.admission import Admission


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
