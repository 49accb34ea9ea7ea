"""What a record keeps, what an adapter's own config tells, and records of older releases."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis

from lorapool.shared.catalog.adapter_record import AdapterRecord, told_by
from lorapool.shared.errors import AdapterConflict
from lorapool.shared.prompt_format import PromptFormat
from tests.parts import catalog_of

FULL = AdapterRecord(
    id="cfo",
    version="2",
    digest="d" * 64,
    uri="s3://bucket/cfo",
    base_model="org/base",
    base_revision="abc",
    rank=8,
    targets=("q_proj", "v_proj"),
    format="dora+rslora",
    quantized="bnb-4bit",
    prompt_format=PromptFormat(kind="custom", prefix="Ä ", suffix="\n###\n"),
    parents=("cfo-sft@1",),
    owner="finance",
    aliases=("boss", "money"),
    metadata={"team": "a b"},
)


async def test_a_record_comes_back_as_it_went(redis: Redis) -> None:
    """Every field, through Redis; and redis-cli can read them."""
    stored = await catalog_of(redis, "test").register(FULL)
    assert FULL == stored.model_copy(update={"registered_ms": 0})
    assert b'["q_proj", "v_proj"]' == await redis.hget("lp:{test}:adapter:cfo@2", "targets")


async def test_an_old_record_keeps_working(redis: Redis) -> None:
    """One that the first release wrote has none of the newer fields."""
    old = {"id": "cfo", "version": "1", "digest": "d" * 64, "uri": "file:///x", "base_model": "b", "rank": "4"}
    old |= {"aliases": "boss", "metadata": '{"a": "b"}', "status": "ready", "reason": "", "registered_ms": "5"}
    await redis.hset("lp:{test}:adapter:cfo@1", mapping=old)
    found = await catalog_of(redis, "test").get("cfo@1")
    assert (4, ("boss",), {"a": "b"}, None, (), "") == (
        found.rank,
        found.aliases,
        found.metadata,
        found.prompt_format,
        found.parents,
        found.owner,
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"r": 4, "target_modules": ["v", "q"]}, {"rank": 4, "targets": ("q", "v"), "format": "lora"}),
        ({"use_dora": True, "use_rslora": True}, {"format": "dora+rslora"}),
        ({"peft_type": "IA3"}, {"format": "ia3"}),
        ({"target_modules": ".*_proj"}, {"targets": (".*_proj",), "format": "lora"}),
        ({"base_model_name_or_path": "u/llama-bnb-4bit", "revision": "v1"}, {"quantized": "bnb-4bit"}),
        ({"base_model_name_or_path": "u/Llama-AWQ"}, {"quantized": "awq"}),
        ({"init_lora_weights": "loftq"}, {"quantized": "loftq"}),
        ({"base_model_name_or_path": "org/base"}, {"base_model": "org/base"}),
        ({"r": "many", "target_modules": 3, "base_model_name_or_path": ["x"], "revision": 7}, {"format": "lora"}),
    ],
)
def test_what_a_config_tells(config: dict[str, Any], expected: dict[str, Any]) -> None:
    """Only what is there, and only if it is of the right kind."""
    told = told_by(config)
    assert expected == {name: told[name] for name in expected}
    assert all(isinstance(value, str | int) or name == "targets" for name, value in told.items())


async def test_a_version_has_one_prompt_format(redis: Redis) -> None:
    """Another one under the same ref is a conflict, also after removal; saying nothing takes what is there."""
    catalog = catalog_of(redis, "test")
    await catalog.register(FULL)
    assert FULL.prompt_format == (await catalog.register(FULL.model_copy(update={"prompt_format": None}))).prompt_format
    other = FULL.model_copy(update={"prompt_format": PromptFormat(kind="raw")})
    with pytest.raises(AdapterConflict, match="prompt format"):
        await catalog.register(other)
    await catalog.names.delete("boss")
    await catalog.names.delete("money")
    await catalog.remove("cfo@2")
    with pytest.raises(AdapterConflict, match="prompt format"):
        await catalog.register(other)
