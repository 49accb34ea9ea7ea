"""The server cases of AOS's own tests, under their names, against a real worker."""

from __future__ import annotations

import asyncio
import threading

from lorapool.producer.aos import LoRAxServer
from tests.aos.conftest import MakeAdapter, Serve, eventually, text_of
from tests.fleet import WorkerProcess, until


async def test_server_initialization(serve: Serve) -> None:
    """A new server is not running, has a registry under both names, and has asked nothing."""
    server = serve()
    assert not server.running
    assert server.registry is server.adapter_registry
    assert 0 == server.request_counter


async def test_server_start_stop(serve: Serve, worker: WorkerProcess) -> None:
    """Start is True once a worker can serve; stop detaches and leaves the fleet alone. Both may be repeated."""
    server = serve()
    assert await server.start()
    assert await server.start()
    assert server.running
    assert await server.stop()
    assert await server.stop()
    status = server.get_status()
    assert (False, 1) == (status["running"], len(status["workers"]))
    assert worker.process.poll() is None


async def test_adapter_registration(serve: Serve, make_adapter: MakeAdapter) -> None:
    """Adapters are registered before the start, and counted."""
    server = serve()
    server.registry.register_adapter("ceo_adapter", "CEO", str(make_adapter("ceo")))
    server.registry.register_adapter("cfo_adapter", "CFO", str(make_adapter("cfo")))
    assert 2 == server.get_status()["total_adapters"]
    assert {"pending"} == {info.status for info in server.registry.list_adapters()}


async def test_inference(server: LoRAxServer, make_adapter: MakeAdapter) -> None:
    """An adapter answers; the text is that adapter's."""
    folder = make_adapter("test")
    server.registry.register_adapter("test_adapter", "TEST", str(folder))
    result = await server.inference("test_adapter", "Test prompt", max_new_tokens=12)
    assert text_of("Test prompt", folder, 12) == result["generated_text"]
    assert "test_adapter" == result["adapter_id"]
    assert 0 < result["latency_ms"]


async def test_batch_inference(server: LoRAxServer, make_adapter: MakeAdapter) -> None:
    """Two adapters answer in the order asked."""
    folders = {"ceo_adapter": make_adapter("ceo"), "cfo_adapter": make_adapter("cfo")}
    for adapter_id, folder in folders.items():
        server.registry.register_adapter(adapter_id, adapter_id[:3].upper(), str(folder))
    requests = [
        {"adapter_id": "ceo_adapter", "prompt": "Strategic analysis", "params": {"max_new_tokens": 5}},
        {"adapter_id": "cfo_adapter", "prompt": "Financial analysis", "params": {"max_new_tokens": 5}},
    ]
    results = await server.batch_inference(requests)
    expected = [text_of(request["prompt"], folders[request["adapter_id"]], 5) for request in requests]
    assert expected == [result["generated_text"] for result in results]


async def test_metrics_tracking(server: LoRAxServer, make_adapter: MakeAdapter) -> None:
    """Two inferences are two requests, both successful, with a mean latency."""
    server.registry.register_adapter("test_adapter", "TEST", str(make_adapter("test")))
    await server.inference("test_adapter", "Test 1", max_new_tokens=4)
    await server.inference("test_adapter", "Test 2", max_new_tokens=4)
    await eventually(1, lambda: server.metrics["adapter_loads"])  # the worker's next heartbeat says so
    metrics = server.get_status()["metrics"]
    assert (2, 2, 0) == (metrics["total_requests"], metrics["successful_requests"], metrics["failed_requests"])
    assert 0 < metrics["average_latency_ms"]
    assert metrics == server.metrics
    assert 8 == metrics["tokens_generated"]


async def test_adapter_stats(server: LoRAxServer, make_adapter: MakeAdapter) -> None:
    """After one inference an adapter is loaded, once, and has one inference; an unknown one has no statistics."""
    server.registry.register_adapter("test_adapter", "TEST", str(make_adapter("test")))
    await server.inference("test_adapter", "Test prompt", max_new_tokens=4)

    def seen() -> tuple[object, ...]:
        stats = server.get_adapter_stats("test_adapter")
        return tuple(stats[name] for name in ("agent_role", "inference_count", "load_count", "loaded"))

    assert ("TEST", 1, 1, True) == await eventually(("TEST", 1, 1, True), seen)
    stats = server.get_adapter_stats("test_adapter")
    assert "test_adapter" == stats["adapter_id"]
    assert stats["last_used"] >= stats["created_at"]
    assert server.get_adapter_stats("nobody") is None


async def test_starting_twice_at_once_is_starting_once(serve: Serve, worker: WorkerProcess) -> None:
    """Two starts and a stop together leave neither a connection nor a thread behind."""
    before = threading.active_count()
    server = serve()
    assert {True} == set(await asyncio.gather(server.start(), server.start(), server.stop()))
    assert not server.attached
    await until(lambda: before >= threading.active_count())
