"""AOS's own usage example on real inference: five C-suite roles, their adapters, one base model.

The calls are those of the Agent Operating System with the import changed; the sleeps and canned texts behind them are
gone. ``python -m examples.aos_example`` brings an embedded server and has the facade start one worker; with a URL
(``python -m examples.aos_example redis://…``) it attaches to the workers that are there.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from examples.base_model import prepare
from lorapool.producer.aos import MLConfig, MLPipelineManager
from lorapool.producer.local.process import scratch_folder
from lorapool.producer.local.server import embedded_server

ADAPTERS = Path(__file__).parent / "adapters"
DOMAINS = {
    "CEO": "Strategic planning and leadership",
    "CFO": "Financial analysis and planning",
    "COO": "Operations and efficiency",
    "CMO": "Marketing and brand strategy",
    "CTO": "Technology and engineering",
}
PRIORITIES = "What should be our top 3 strategic priorities for the next quarter?"
PROPOSAL = "Launch a new AI-powered product line with an investment of $10M."
TOKENS = 48


def main() -> int:
    """Run the example; 0 when every role answered."""
    if len(sys.argv) > 1:
        return asyncio.run(run(MLConfig(lorax_base_model=str(prepare()), lorax_redis_url=sys.argv[1], **COMMON)))
    with scratch_folder() as folder, embedded_server(folder) as url:
        own: dict[str, Any] = {"lorax_spawn_local": 1, "lorax_adapter_cache_size": 3, "lorax_max_batch_size": 16}
        config = MLConfig(lorax_base_model=str(prepare()), lorax_redis_url=url, **own, **COMMON)
        return asyncio.run(run(config))


COMMON: dict[str, Any] = {
    "enable_lorax": True,
    "model_storage_path": str(ADAPTERS),
    "lorax_max_concurrent_requests": 64,
    "lorax_start_timeout_s": 240.0,
    "lorax_prompt_as": "message",  # these adapters were trained on the model's chat template
}


async def run(config: MLConfig) -> int:
    """The nine steps, on whatever pool the configuration names."""
    pipeline = MLPipelineManager(config)
    print("1. starting: attach to the pool, wait for a worker")
    if not await pipeline.start_lorax_server():
        print(f"   could not start: {pipeline.last_error}")
        return 1
    try:
        return await _steps(pipeline)
    finally:
        stopped = await pipeline.stop_lorax_server()
        print(f"8. stopped{'' if stopped else f', but: {pipeline.last_error}'}")


async def _steps(pipeline: MLPipelineManager) -> int:
    for role, domain in DOMAINS.items():
        if not pipeline.register_lorax_adapter(role, role.lower(), version="1.0.0", metadata={"domain": domain}):
            print(f"   {role} was not registered: {pipeline.last_error}")
            return 1
    print(f"2. registered: {', '.join(DOMAINS)}")
    _show_status(pipeline.get_lorax_status())
    print(f"4. one question to one agent: {PRIORITIES}")
    _show("CEO", await pipeline.lorax_inference("CEO", PRIORITIES, max_new_tokens=TOKENS, temperature=0.7))
    print(f"5. one proposal to all at once: {PROPOSAL}")
    requests = [
        {
            "agent_role": role,
            "prompt": f"From the perspective of {domain.lower()}, what do you think of this: {PROPOSAL}",
            "params": {"max_new_tokens": TOKENS, "temperature": 0.0},
        }
        for role, domain in DOMAINS.items()
    ]
    results = await pipeline.lorax_batch_inference(requests)
    for request, result in zip(requests, results, strict=True):
        _show(str(request["agent_role"]), result)
    _show_metrics(pipeline.get_lorax_status()["metrics"])
    _show_adapters(pipeline)
    return 0 if all(result["success"] for result in results) else 1


def _show_status(status: dict[str, Any]) -> None:
    print(
        f"3. status: base model {status['base_model']}, {status['total_adapters']} adapters, "
        f"{status['cache_size']} slots, {len(status['workers'])} worker"
    )


def _show(role: str, result: dict[str, Any]) -> None:
    if not result["success"]:
        print(f"   {role}: FAILED, {result['error_type']}: {result['error']}")
        return
    print(f"   {role}: {' '.join(result['generated_text'].split())}")
    print(
        f"        {result['adapter_id']}@{result['adapter_version']}, {result['tokens_generated']} tokens, "
        f"{result['latency_ms']:.0f} ms (queue {result['queue_ms']}, load {result['load_ms']}), "
        f"{'was loaded' if result['adapter_loaded'] else 'had to be loaded'}"
    )


def _show_metrics(metrics: dict[str, Any]) -> None:
    looked = metrics["cache_hits"] + metrics["cache_misses"]
    rate = f"{metrics['cache_hits'] / looked:.0%}" if looked else "-"
    print(
        f"6. metrics of the pool: {metrics['total_requests']} requests, {metrics['successful_requests']} successful, "
        f"mean {metrics['average_latency_ms']:.0f} ms, {metrics['tokens_generated']} tokens, hit rate {rate}"
    )


def _show_adapters(pipeline: MLPipelineManager) -> None:
    print("7. adapters:")
    for role in DOMAINS:
        stats = pipeline.get_lorax_adapter_stats(role)
        if stats:
            print(
                f"   {role}: {stats['inference_count']} inferences, loaded {stats['load_count']} times, "
                f"{'resident' if stats['loaded'] else 'not resident'} at the last heartbeat"
            )


if __name__ == "__main__":
    sys.exit(main())
