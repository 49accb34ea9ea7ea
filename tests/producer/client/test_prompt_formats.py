"""What registering says of an adapter acts in a worker process."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from lorapool.producer import AdapterRefused, Client, Result
from tests.fake_model import expected
from tests.fleet import alive, fake_worker

Make = Callable[..., Path]
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]


async def test_messages_reach_the_model_in_the_adapters_own_format(
    redis_url: str, redis: Redis, make_adapter: Make
) -> None:
    """A founder trained on prompts that end in ### gets its messages so; a prompt of its own stays as it is."""
    form = {"kind": "custom", "suffix": "\n###\n"}
    with fake_worker(redis_url):
        await alive(redis, "w1")
        async with Client(redis_url) as pool:
            founder = await pool.adapters.register("founder", make_adapter(salt="f"), prompt_format=form)
            plain = await pool.adapters.register("plain", make_adapter(salt="p"), prompt_format="raw")
            requests = [{"adapter": name, "messages": CHAT, "max_new_tokens": 4} for name in ("founder", "plain")]
            answers = await pool.gather([*requests, {"adapter": "founder", "prompt": "Why?", "max_new_tokens": 4}])
    texts = ["Be brief.\n\nWhy?\n###\n", "Be brief.\n\nWhy?", "Why?"]
    digests = [founder.digest, plain.digest, founder.digest]
    for answer, text, digest in zip(answers, texts, digests, strict=True):
        assert isinstance(answer, Result), answer
        assert expected(text, digest, 4) == answer.token_ids


async def test_an_adapter_with_parents_is_refused_alone(redis_url: str, redis: Redis, make_adapter: Make) -> None:
    """Said at registering, or shown by the merged base that it names; the reason is in the record."""
    with fake_worker(redis_url):
        await alive(redis, "w1")
        async with Client(redis_url) as pool:
            with pytest.raises(AdapterRefused, match=r"trained on top of cfo-sft@1"):
                await pool.adapters.register("cfo", make_adapter(), parents=["cfo-sft@1"])
            record = await pool.adapters.get("cfo@1.0.0")
            merged = make_adapter(salt="m")
            config = (merged / "adapter_config.json").read_text().replace('"tiny"', '"/out/tiny-sft-merged"')
            (merged / "adapter_config.json").write_text(config)
            with pytest.raises(AdapterRefused, match="merged model"):
                await pool.adapters.register("dpo", merged)
    assert (("cfo-sft@1",), "refused") == (record.parents, record.status)
    assert "without them it answers wrongly" in record.reason


async def test_the_record_tells_what_the_config_says(client: Client, make_adapter: Make) -> None:
    """Of base, revision, targets and kind; owner and template are kept."""
    folder = make_adapter()
    (folder / "adapter_config.json").write_text(
        '{"r": 8, "target_modules": ["v_proj", "q_proj"], "use_dora": true, "revision": "abc", '
        '"base_model_name_or_path": "org/base-GPTQ"}'
    )
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    record = await client.adapters.register("cfo", folder, owner="finance", wait=False)
    assert (8, ("q_proj", "v_proj"), "dora", "abc", "gptq") == (
        record.rank,
        record.targets,
        record.format,
        record.base_revision,
        record.quantized,
    )
    assert ("finance", "{{ messages[0].content }}") == (record.owner, record.prompt_format.template)
