"""The five-agent cases of AOS's own tests, under their names, against a real worker over the fake model."""

from __future__ import annotations

import pytest

from lorapool.producer.aos import IgnoredSetting
from tests.aos.conftest import MakeAdapter, Serve, eventually, text_of
from tests.fleet import WorkerProcess

AGENTS = ("CEO", "CFO", "COO", "CMO", "CTO")


async def test_multi_agent_scenario(serve: Serve, worker: WorkerProcess, make_adapter: MakeAdapter) -> None:
    """Five agents, five adapters, one batch: five answers in order, each its own adapter's, all counted."""
    with pytest.warns(IgnoredSetting, match="adapter_cache_size = 5"):
        server = serve(adapter_cache_size=5)
    folders = {agent: make_adapter(agent.lower()) for agent in AGENTS}
    for agent, folder in folders.items():
        server.registry.register_adapter(f"{agent.lower()}_adapter", agent, str(folder))
    assert await server.start()
    requests = [
        {"adapter_id": f"{agent.lower()}_adapter", "prompt": f"{agent} analysis", "params": {"max_new_tokens": 6}}
        for agent in AGENTS
    ]
    results = await server.batch_inference(requests)
    assert [text_of(f"{agent} analysis", folders[agent], 6) for agent in AGENTS] == [
        result["generated_text"] for result in results
    ]
    status = server.get_status()
    assert (5, 5) == (status["total_adapters"], status["metrics"]["total_requests"])


async def test_cache_behavior(serve: Serve, worker: WorkerProcess, make_adapter: MakeAdapter) -> None:
    """Five adapters through two slots: every first use is a miss, an immediate second one a hit, and two are loaded."""
    server = serve()
    assert await server.start()
    for number in range(5):
        server.registry.register_adapter(f"adapter_{number}", f"AGENT_{number}", str(make_adapter(f"a{number}")))
        for _ in range(2):
            await server.inference(f"adapter_{number}", f"Prompt {number}", max_new_tokens=3)

    def seen() -> tuple[object, ...]:
        status = server.get_status()
        metrics = status["metrics"]
        return metrics["cache_hits"], metrics["cache_misses"], metrics["adapter_loads"], status["loaded_adapter_ids"]

    expected = (5, 5, 5, ["adapter_3", "adapter_4"])
    assert expected == await eventually(expected, seen)
    assert 2 == server.get_status()["cache_size"]
