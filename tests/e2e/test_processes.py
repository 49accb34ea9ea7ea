"""What runs where: the loop of a real worker shares no process with torch."""

from __future__ import annotations

from pathlib import Path

from lorapool.producer.client.client import Client
from tests.e2e.conftest import RealPool


async def test_the_loop_loads_no_torch(real_pool: RealPool, pool: Client) -> None:
    """Neither at its start nor by judging adapters, a chat and a job: only its engine's process has mapped libtorch."""
    await (await pool.submit("ceo", messages=[{"role": "user", "content": "What next?"}], max_new_tokens=2)).result()
    loop = real_pool.worker.process.pid
    assert "libtorch" not in _mapped(loop)
    engines = [pid for pid in _children(loop) if "lorapool.worker.engine_process.child" in _command(pid)]
    assert 1 == len(engines)
    assert "libtorch" in _mapped(engines[0])


def _mapped(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def _command(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def _children(pid: int) -> list[int]:
    found = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for children in found for child in children]
