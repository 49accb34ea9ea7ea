"""``lorapool-worker`` with the fake model in the place of the real one: ``python -m tests.aos.worker_program``."""

from __future__ import annotations

from typing import Any

from lorapool.worker import cli
from lorapool.worker.config import WorkerConfig
from tests.fake_worker import FakeHost


def fake_host(config: WorkerConfig, _log_level: str) -> FakeHost:
    """Whatever base model it is told to serve."""
    return FakeHost(config, step_s=0.01, base_model=config.base_model)


if __name__ == "__main__":
    patched: Any = cli
    patched.NativeHost = fake_host
    cli.main()
