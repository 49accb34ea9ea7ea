"""A facade in a process of its own: ``python -m tests.aos.another_process URL ROLE``; prints what it saw as JSON."""

from __future__ import annotations

import asyncio
import json
import sys

from lorapool.producer.aos import MLConfig, MLPipelineManager


async def main(url: str, role: str) -> None:
    pipeline = MLPipelineManager(MLConfig(lorax_base_model="fake", lorax_redis_url=url))
    assert await pipeline.start_lorax_server(), pipeline.last_error
    result = await pipeline.lorax_inference(role, "from elsewhere", max_new_tokens=3)
    stats = pipeline.get_lorax_adapter_stats(role)
    await pipeline.stop_lorax_server()
    print(json.dumps({"result": result, "stats": stats}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
