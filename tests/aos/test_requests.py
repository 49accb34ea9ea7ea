"""What becomes of single requests: their time, their end by the caller, where they may come from."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

from lorapool.producer.aos import LoRAxServer, MLConfig, MLPipelineManager
from lorapool.producer.client.client import Client
from lorapool.shared.errors import AdapterNotReady
from tests.aos.conftest import MakeAdapter, Serve, text_of
from tests.fleet import WorkerProcess, fake_worker, until


async def slow(server: LoRAxServer, make_adapter: MakeAdapter, tokens: int) -> asyncio.Task[dict[str, Any]]:
    """A request that runs."""
    assert await server.start(), server.last_error
    server.registry.register_adapter("ceo", "CEO", str(make_adapter()))
    running = asyncio.create_task(server.inference("ceo", "slow", max_new_tokens=tokens))
    await until(lambda: server.get_status()["active_requests"])
    return running


async def test_a_request_without_room_in_its_time_is_refused(
    redis_url: str, serve: Serve, make_adapter: MakeAdapter
) -> None:
    """It waited for its turn behind another one, never became a job, and is counted as refused."""
    with fake_worker(redis_url, model={"step_s": 0.02}):
        server = serve(max_concurrent_requests=1)
        running = await slow(server, make_adapter, 100)
        [late] = await server.batch_inference([{"agent_role": "CEO", "prompt": "late", "params": {"timeout": 0.2}}])
        assert ("NoRoom", False) == (late["error_type"], running.done())
        assert (await running)["success"]
        metrics = server.metrics
    assert (1, 1, 1) == tuple(metrics[f"{name}_requests"] for name in ("successful", "failed", "refused"))


async def test_a_caller_who_leaves_frees_the_row(redis_url: str, serve: Serve, make_adapter: MakeAdapter) -> None:
    """Cancelling the call cancels the job."""
    with fake_worker(redis_url, model={"step_s": 0.02}):
        server = serve()
        running = await slow(server, make_adapter, 3000)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await until(lambda: server.metrics["cancelled_requests"] == 1)
        assert 0 == server.get_status()["active_requests"]


def test_a_facade_outlives_an_event_loop(redis_url: str, worker: WorkerProcess, make_adapter: MakeAdapter) -> None:
    """Started in one, asked in another, looked at in none."""
    pipeline = MLPipelineManager(MLConfig(lorax_base_model="fake", lorax_redis_url=redis_url))
    folder = make_adapter()
    assert asyncio.run(pipeline.start_lorax_server())
    assert pipeline.register_lorax_adapter("CEO", str(folder))
    result = asyncio.run(pipeline.lorax_inference("CEO", "hello", max_new_tokens=3))
    assert text_of("hello", folder, 3) == result["generated_text"]
    assert 1 == pipeline.get_lorax_status()["metrics"]["successful_requests"]
    assert asyncio.run(pipeline.stop_lorax_server())


async def test_prompt_or_messages(server: LoRAxServer, make_adapter: MakeAdapter) -> None:
    """One of them; a request that has none, or a prompt that is no text, is refused by name."""
    server.registry.register_adapter("ceo", "CEO", str(make_adapter()))
    messages = [{"role": "user", "content": "hello"}]
    for prompt, extra in ((None, {}), ("hello", {"messages": messages}), (7, {}), (None, {"system": "Be brief."})):
        [result] = await server.batch_inference([{"agent_role": "CEO", "prompt": prompt, "params": extra}])
        assert "InvalidRequest" == result["error_type"]
        assert "prompt" in result["error"]


async def test_the_first_request_waits_until_its_adapter_is_validated(
    redis_url: str, serve: Serve, make_adapter: MakeAdapter
) -> None:
    """Registered while the worker could not look at it, asked for at once: answered when it has, not refused."""
    folder = make_adapter()
    with fake_worker(redis_url) as worker:
        server = serve()
        assert await server.start(), server.last_error
        worker.signal(signal.SIGSTOP)
        async with Client(redis_url) as client:
            await client.adapters.register("ceo", folder, aliases=["CEO"], wait=False)
            asked = asyncio.create_task(server.inference_for_agent("CEO", "hello", max_new_tokens=3, timeout=20))
            await asyncio.sleep(0.3)
            assert not asked.done(), await asked
            worker.signal(signal.SIGCONT)
            assert text_of("hello", folder, 3) == (await asked)["generated_text"]
            worker.signal(signal.SIGSTOP)
            await client.adapters.register("cfo", folder, aliases=["CFO"], wait=False)
            with pytest.raises(AdapterNotReady):
                await server.inference_for_agent("CFO", "hello", timeout=0.5)
            worker.signal(signal.SIGCONT)
        assert (1, 1) == (server.metrics["successful_requests"], server.metrics["refused_requests"])
