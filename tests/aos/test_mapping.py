"""AOS's inventory as a table: every class, field, default, signature and dictionary key is there.

What each means is shown by the other files beside this one; here also that values which AOS made up are measured.
"""

from __future__ import annotations

import dataclasses
import inspect
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from lorapool.producer import aos
from lorapool.producer.aos import (
    AdapterInfo,
    LoRAxAdapterRegistry,
    LoRAxConfig,
    LoRAxServer,
    MLConfig,
    MLPipelineManager,
)
from tests.aos.conftest import MakeAdapter, Manage, eventually
from tests.fleet import WorkerProcess

CONFIG = {
    "base_model": "meta-llama/Llama-3.1-8B-Instruct",
    "base_model_revision": None,
    "host": "0.0.0.0",
    "port": 8080,
    "max_concurrent_requests": 128,
    "max_batch_size": 32,
    "max_sequence_length": 4096,
    "adapter_cache_size": 100,
    "adapter_source": "local",
    "adapter_base_path": "adapters",
    "use_flash_attention": True,
    "use_paged_attention": True,
    "tensor_parallel_size": 1,
    "dtype": "float16",
    "gpu_memory_utilization": 0.9,
    "swap_space_gb": 20,
    "enable_metrics": True,
    "metrics_port": 9090,
    "log_level": "INFO",
}
ML_CONFIG = {
    "enable_training": True,
    "model_storage_path": "models",
    "training_data_path": "training_data",
    "max_training_jobs": 5,
    "default_model_type": "lora",
    "enable_dpo": True,
    "dpo_beta": 0.1,
    "dpo_learning_rate": 5e-5,
    "dpo_batch_size": 4,
    "dpo_epochs": 3,
    "preference_data_path": "preference_data",
    "enable_mlflow": True,
    "mlflow_tracking_uri": "",
    "mlflow_experiment_prefix": "aos_dpo",
    "enable_lorax": True,
    "lorax_base_model": "meta-llama/Llama-3.1-8B-Instruct",
    "lorax_host": "0.0.0.0",
    "lorax_port": 8080,
    "lorax_adapter_cache_size": 100,
    "lorax_max_concurrent_requests": 128,
    "lorax_max_batch_size": 32,
    "lorax_gpu_memory_utilization": 0.9,
}
INFO: dict[str, Any] = {
    "adapter_id": "a",
    "agent_role": "R",
    "adapter_path": "/p",
    "version": "1.0.0",
    "created_at": None,
    "loaded": False,
    "load_count": 0,
    "inference_count": 0,
    "last_used": None,
    "metadata": {},
}
NEEDED = inspect.Parameter.empty
METHODS: dict[Callable[..., Any], tuple[str, dict[str, Any]]] = {
    LoRAxAdapterRegistry.register_adapter: (
        "sync",
        {"adapter_id": NEEDED, "agent_role": NEEDED, "adapter_path": NEEDED, "version": "1.0.0", "metadata": None},
    ),
    LoRAxAdapterRegistry.get_adapter: ("sync", {"adapter_id": NEEDED}),
    LoRAxAdapterRegistry.get_adapter_for_agent: ("sync", {"agent_role": NEEDED}),
    LoRAxAdapterRegistry.list_adapters: ("sync", {}),
    LoRAxAdapterRegistry.get_loaded_adapters: ("sync", {}),
    LoRAxAdapterRegistry.get_most_used_adapters: ("sync", {"limit": 10}),
    LoRAxAdapterRegistry.update_usage_stats: ("sync", {"adapter_id": NEEDED, "loaded": None}),
    LoRAxServer.start: ("async", {}),
    LoRAxServer.stop: ("async", {}),
    LoRAxServer.inference: (
        "async",
        {
            "adapter_id": NEEDED,
            "prompt": NEEDED,
            "max_new_tokens": 256,
            "temperature": 0.7,
            "top_p": 0.9,
            "kwargs": NEEDED,
        },
    ),
    LoRAxServer.inference_for_agent: ("async", {"agent_role": NEEDED, "prompt": NEEDED, "kwargs": NEEDED}),
    LoRAxServer.batch_inference: ("async", {"requests": NEEDED}),
    LoRAxServer.get_status: ("sync", {}),
    LoRAxServer.get_adapter_stats: ("sync", {"adapter_id": NEEDED}),
    MLPipelineManager.start_lorax_server: ("async", {}),
    MLPipelineManager.stop_lorax_server: ("async", {}),
    MLPipelineManager.register_lorax_adapter: (
        "sync",
        {"agent_role": NEEDED, "adapter_path": NEEDED, "adapter_id": None, "version": "1.0.0", "metadata": None},
    ),
    MLPipelineManager.lorax_inference: (
        "async",
        {"agent_role": NEEDED, "prompt": NEEDED, "max_new_tokens": 256, "temperature": 0.7, "kwargs": NEEDED},
    ),
    MLPipelineManager.lorax_batch_inference: ("async", {"requests": NEEDED}),
    MLPipelineManager.get_lorax_status: ("sync", {}),
    MLPipelineManager.get_lorax_adapter_stats: ("sync", {"agent_role": NEEDED}),
}
RESULT = {
    "request_id", "adapter_id", "prompt", "generated_text", "tokens_generated", "latency_ms", "adapter_loaded",
    "timestamp", "agent_role", "adapter_version", "base_model", "worker_id", "prompt_tokens", "finish_reason",
    "attempt", "queue_ms", "load_ms", "ttft_ms", "generate_ms", "success", "adapter_digest", "used_base",
}  # fmt: skip
METRICS = [
    "total_requests", "successful_requests", "failed_requests", "average_latency_ms", "adapters_loaded", "cache_hits",
    "cache_misses",
]  # fmt: skip
STATUS = {
    "running", "base_model", "server_address", "total_adapters", "loaded_adapters", "cache_size", "active_requests",
    "metrics", "loaded_adapter_ids", "config", "enabled", "initialized", "queue_depth", "oldest_wait_ms", "workers",
    "own_requests", "own_latency_ms",
}  # fmt: skip
STATS = {
    "adapter_id", "agent_role", "version", "loaded", "load_count", "inference_count", "last_used", "created_at",
    "metadata",
}  # fmt: skip


def fields_of(value: object, names: dict[str, Any]) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


def test_every_setting_has_its_default() -> None:
    """The fields of LoRAxConfig and MLConfig, in AOS's order."""
    assert CONFIG == fields_of(LoRAxConfig(), CONFIG)
    assert ML_CONFIG == fields_of(MLConfig(), ML_CONFIG)
    assert list(CONFIG) == [each.name for each in dataclasses.fields(LoRAxConfig)][: len(CONFIG)]
    assert list(ML_CONFIG) == [each.name for each in dataclasses.fields(MLConfig)][: len(ML_CONFIG)]


def test_adapter_info_has_its_fields() -> None:
    """The ten of AOS come first, with their defaults."""
    info = AdapterInfo("a", "R", "/p")
    assert INFO | {"created_at": info.created_at} == fields_of(info, INFO)
    assert list(INFO) == [each.name for each in dataclasses.fields(AdapterInfo)][:10]
    assert datetime.fromisoformat(info.created_at).tzinfo == UTC


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__qualname__)
def test_every_call_has_its_signature(method: Callable[..., Any]) -> None:
    """Arguments, their defaults, and whether it is awaited."""
    kind, expected = METHODS[method]
    parameters = dict(inspect.signature(method).parameters)
    del parameters["self"]
    assert expected == {name: parameter.default for name, parameter in parameters.items()}
    assert (kind == "async") == inspect.iscoroutinefunction(method)


def test_every_name_is_exported() -> None:
    """From lorapool.producer.aos."""
    names = {"LoRAxConfig", "AdapterInfo", "LoRAxAdapterRegistry", "LoRAxServer", "MLConfig", "MLPipelineManager"}
    assert names <= set(aos.__all__)


async def test_a_result_has_its_keys(pipeline: MLPipelineManager, make_adapter: MakeAdapter) -> None:
    """AOS's and the new ones, measured: who answered, from what, how long each part took. No note."""
    folder = make_adapter()
    assert pipeline.register_lorax_adapter("CEO", str(folder), adapter_id="ceo_adapter", version="2.0.0")
    cold = await pipeline.lorax_inference("CEO", "hello", max_new_tokens=5)
    warm = await pipeline.lorax_inference("CEO", "hello", max_new_tokens=5)
    assert RESULT == set(cold) == set(warm)
    assert [False, True] == [cold["adapter_loaded"], warm["adapter_loaded"]]  # resident when picked
    facts = {
        "adapter_id": "ceo_adapter", "adapter_version": "2.0.0", "agent_role": "CEO", "base_model": "fake",
        "worker_id": "w1", "attempt": 1, "prompt": "hello", "prompt_tokens": 5, "tokens_generated": 5,
        "finish_reason": "length", "success": True, "used_base": False,
    }  # fmt: skip
    assert facts == {name: cold[name] for name in facts}
    assert cold["queue_ms"] + cold["load_ms"] + cold["generate_ms"] <= cold["latency_ms"] + 1
    assert 0 <= cold["ttft_ms"] <= cold["latency_ms"] + 1
    assert datetime.fromisoformat(cold["timestamp"]).tzinfo == UTC
    assert cold["request_id"] != warm["request_id"]


async def test_a_status_has_its_keys(
    redis_url: str, pipeline: MLPipelineManager, manage: Manage, make_adapter: MakeAdapter
) -> None:
    """AOS's and the new ones: sums over the workers and counters of the pool, the same for a second facade."""
    assert pipeline.register_lorax_adapter("CEO", str(make_adapter()))
    await pipeline.lorax_inference("CEO", "hello", max_new_tokens=5)
    await pipeline.lorax_inference("CEO", "hello", max_new_tokens=5)
    await eventually(["CEO"], lambda: pipeline.get_lorax_status()["loaded_adapter_ids"])
    status = pipeline.get_lorax_status()
    assert set(status) == STATUS
    assert set(METRICS) <= set(status["metrics"])
    facts = {
        "running": True, "enabled": True, "initialized": True, "base_model": "fake", "total_adapters": 1,
        "loaded_adapters": 1, "cache_size": 2, "active_requests": 0, "queue_depth": 0, "oldest_wait_ms": None,
        "server_address": f"{redis_url} (pool default)",
        "config": {"max_concurrent_requests": 128, "max_batch_size": 8, "gpu_memory_utilization": 0.9},
    }  # fmt: skip
    assert facts == {name: status[name] for name in facts}
    assert (2, 2, 0, 1, 1, 1) == tuple(status["metrics"][name] for name in METRICS if name != "average_latency_ms")
    assert 2 == status["own_latency_ms"]["count"]
    assert 0 < status["own_latency_ms"]["p50"] <= status["own_latency_ms"]["p99"]
    assert ["w1"] == [worker["worker"] for worker in status["workers"]]
    awaited = await pipeline.lorax_status()
    assert status | {"workers": awaited["workers"]} == awaited
    other = manage().get_lorax_status()
    assert {"message", *STATUS} == set(other)
    assert (status["metrics"], False) == (other["metrics"], other["running"])


async def test_statistics_have_their_keys(pipeline: MLPipelineManager, make_adapter: MakeAdapter) -> None:
    """AOS's, and every counter of the adapter and of the role; awaited they are the same."""
    assert pipeline.register_lorax_adapter("CEO", str(make_adapter()), metadata={"domain": "strategy"})
    await pipeline.lorax_inference("CEO", "hello", max_new_tokens=5)
    stats = pipeline.get_lorax_adapter_stats("CEO")
    assert stats is not None
    assert {*STATS, "status", "agent_roles", "adapter_stats", "role_stats"} == set(stats)
    assert ({"domain": "strategy"}, 1, 5) == (
        stats["metadata"],
        stats["role_stats"]["succeeded"],
        stats["adapter_stats"]["completion_tokens"],
    )
    awaited = await pipeline.lorax_adapter_stats("CEO")
    assert awaited is not None
    assert stats["role_stats"] == awaited["role_stats"]
    assert pipeline.get_lorax_adapter_stats("NOBODY") is None


async def test_disabled_is_disabled(make_adapter: MakeAdapter) -> None:
    """enable_lorax=False: nothing connects, every call says so in its own way."""
    pipeline = MLPipelineManager(MLConfig(enable_lorax=False, lorax_redis_url="redis://127.0.0.1:1"))
    assert not await pipeline.start_lorax_server()
    assert "AOS_ENABLE_LORAX" in str(pipeline.last_error)
    assert not pipeline.register_lorax_adapter("CEO", str(make_adapter()))
    assert "disabled" in (await pipeline.lorax_inference("CEO", "hello"))["error"]
    batch = await pipeline.lorax_batch_inference([{"agent_role": "CEO", "prompt": "a"}, {"agent_role": "CFO"}])
    assert ["CEO", "CFO"] == [item["agent_role"] for item in batch]
    assert (False, False) == (pipeline.get_lorax_status()["enabled"], pipeline.get_lorax_status()["initialized"])
    assert pipeline.get_lorax_adapter_stats("CEO") is None
    assert await pipeline.stop_lorax_server()


async def test_a_server_out_of_reach_is_not_an_empty_one() -> None:
    """Start says why; a status has its keys, None for what is not known, and the reason."""
    pipeline = MLPipelineManager(MLConfig(lorax_redis_url="redis://user:secret@127.0.0.1:1"))
    assert not await pipeline.start_lorax_server()
    assert "127.0.0.1:1" in str(pipeline.last_error)
    status = pipeline.get_lorax_status()
    assert (False, None, None) == (status["running"], status["total_adapters"], status["metrics"]["total_requests"])
    assert "does not answer" in status["message"]
    assert set(status) >= STATUS
    assert "secret" not in str(status) + str(pipeline.last_error)
    assert not pipeline.register_lorax_adapter("CEO", f"/no/such/{uuid.uuid4()}")


async def test_registered_before_the_start(
    manage: Manage, make_adapter: MakeAdapter, redis_url: str, worker_later: Callable[[], WorkerProcess]
) -> None:
    """It is pending until a worker is there; start waits for the verdict, and then it answers."""
    pipeline = manage()
    assert pipeline.register_lorax_adapter("CEO", str(make_adapter()))
    pending = await pipeline.lorax_inference("CEO", "hello")
    assert "NotRunning" == pending["error_type"]
    worker_later()
    assert await pipeline.start_lorax_server()
    assert (await pipeline.lorax_inference("CEO", "hello", max_new_tokens=2))["success"]


def test_training_is_pointed_elsewhere() -> None:
    """AOS's training calls do not exist, and say what does."""
    pipeline = MLPipelineManager(MLConfig())
    with pytest.raises(AttributeError, match="register_lorax_adapter"):
        pipeline.train_lora_adapter("CEO", {})
    assert not hasattr(pipeline, "infer")
