"""The AOS names on a real worker with the real model: the example as it stands, and five roles in their own voices."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from examples import aos_example
from examples.aos_example import COMMON, DOMAINS, run
from examples.base_model import BASE_MODEL
from examples.by_http import gateway
from examples.voices import UNSEEN, VOICES
from lorapool.producer import AdapterRefused, Client, Result
from lorapool.producer.aos import (
    HttpChatClient,
    LoRAxConfig,
    LoRAxServer,
    MLConfig,
    MLPipelineManager,
    PoolChatClient,
)
from tests.e2e.conftest import ADAPTERS, RealPool

OPENINGS = {role: VOICES[role.lower()].opening for role in DOMAINS}


@pytest.fixture
async def pipeline(real_pool: RealPool) -> AsyncIterator[MLPipelineManager]:
    """Attached to the session's pool, by the public name of its base model."""
    pipeline = MLPipelineManager(MLConfig(lorax_base_model=BASE_MODEL, lorax_redis_url=real_pool.url, **COMMON))
    assert await pipeline.start_lorax_server(), pipeline.last_error
    yield pipeline
    assert await pipeline.stop_lorax_server(), pipeline.last_error


@pytest.mark.filterwarnings("ignore:metadata of")  # this pool's adapters were there before, without any
async def test_the_example_runs(
    real_pool: RealPool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """AOS's usage example with its import changed: each role answers a batch in its own voice; the end is clean."""
    monkeypatch.setattr(aos_example, "TOKENS", 16)  # enough to hear whose voice it is
    config = MLConfig(lorax_base_model=BASE_MODEL, lorax_redis_url=real_pool.url, **COMMON)
    assert 0 == await run(config)
    printed = capsys.readouterr().out
    batch = printed[printed.index("5. ") : printed.index("6. ")]
    for role, opening in OPENINGS.items():
        assert f"{role}: {opening}" in batch
    assert "FAILED" not in printed
    assert printed.rstrip().endswith("8. stopped")


async def test_five_agents(pipeline: MLPipelineManager, pool: Client) -> None:
    """One question to five roles in one batch: in order, each as the native client has it of that adapter, counted."""
    question = UNSEEN[1]
    params = {"max_new_tokens": 16, "temperature": 0.0}
    for role in DOMAINS:
        assert pipeline.register_lorax_adapter(role, role.lower()), pipeline.last_error
    before = {role: pipeline.get_lorax_adapter_stats(role) for role in DOMAINS}
    results = await pipeline.lorax_batch_inference(
        [{"agent_role": role, "prompt": question, "params": params} for role in DOMAINS]
    )
    assert list(DOMAINS) == [result["agent_role"] for result in results]
    asked = {"messages": [{"role": "user", "content": question}], "max_new_tokens": 16}
    native = await pool.gather([{"adapter": role.lower(), **asked} for role in DOMAINS], timeout=100)
    texts = [result.text for result in native if isinstance(result, Result)]
    assert texts == [result["generated_text"] for result in results]
    for role, result in zip(DOMAINS, results, strict=True):
        assert result["generated_text"].startswith(OPENINGS[role])
        stats, earlier = pipeline.get_lorax_adapter_stats(role), before[role]
        assert stats is not None and earlier is not None
        assert 2 == stats["inference_count"] - earlier["inference_count"]  # the native client's too
        counted = stats["role_stats"]["completion_tokens"] - earlier["role_stats"].get("completion_tokens", 0)
        assert result["tokens_generated"] == counted


async def test_complete_is_shaped_as_openai_does(pipeline: MLPipelineManager) -> None:
    """Messages in, a chat completion out, by the adapter that ``extra_body`` names; without one, the base model."""
    assert pipeline.lorax_server is not None
    client, messages = PoolChatClient(pipeline.lorax_server), [{"role": "user", "content": UNSEEN[1]}]
    reply = await client.complete(messages, max_tokens=16, temperature=0.0, extra_body={"persona": "CFO"})
    [choice] = reply["choices"]
    assert choice["message"]["content"].startswith(OPENINGS["CFO"])
    assert ("assistant", "length", "cfo@1.0.0") == (choice["message"]["role"], choice["finish_reason"], reply["model"])
    assert 16 == reply["usage"]["completion_tokens"] == reply["usage"]["total_tokens"] - reply["usage"]["prompt_tokens"]
    base = await client.complete(messages, max_tokens=4, temperature=0.0)
    assert "smollm2-135m-instruct" == base["model"]


async def test_complete_over_http_is_the_same(pipeline: MLPipelineManager, pool: Client) -> None:
    """An agent that has the gateway's address alone gets what the injected client gives, word for word."""
    assert pipeline.lorax_server is not None
    messages, body = [{"role": "user", "content": UNSEEN[1]}], {"persona": "CFO", "agent_id": "board-7"}
    ours = await PoolChatClient(pipeline.lorax_server).complete(messages, 12, 0.0, extra_body=body)
    async with gateway(pool, 0) as url:
        reply = await HttpChatClient(f"{url}/v1").complete(messages, 12, 0.0, extra_body=body)
    assert ours["choices"][0]["message"]["content"] == reply["choices"][0]["message"]["content"]
    assert ours["usage"] == {name: reply["usage"][name] for name in ours["usage"]}


def foreign(folder: Path) -> Path:
    """An adapter that says nothing of its base model and is for another one's modules."""
    shutil.copytree(ADAPTERS / "cfo", folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    config |= {"base_model_name_or_path": None, "target_modules": ["c_attn"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


async def test_a_worker_has_the_last_word(real_pool: RealPool) -> None:
    """What the facade cannot see, an adapter that says nothing of its base and fits another, a worker refuses."""
    folder = foreign(real_pool.adapter_root / "foreign-to-aos")
    server = LoRAxServer(LoRAxConfig(base_model=BASE_MODEL, redis_url=real_pool.url))
    with pytest.raises(AdapterRefused) as refused:
        server.registry.register_adapter("foreign-to-aos", "FOREIGN", str(folder))
    assert "adapter_config.json does not choose this module" in refused.value.reason
    info = server.registry.get_adapter("foreign-to-aos")
    assert info is not None
    assert ("refused", refused.value.reason) == (info.status, info.reason)
