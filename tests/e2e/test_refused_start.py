"""A worker that cannot work says why in one line, and exits with a status that tells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.conftest import running_server
from tests.fleet import ROOT, alive, fake_worker
from tests.parts import membership_of

PROGRAM = str(Path(sys.executable).parent / "lorapool-worker")


def run(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``lorapool-worker run`` to its early end."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LORAPOOL_")}
    return subprocess.run(
        [PROGRAM, "run", *flags], capture_output=True, text=True, timeout=60, env=clean | environment, check=False
    )


@pytest.fixture
def other_base_model(tmp_path: Path) -> Path:
    """Enough of a checkpoint to have an identity; loading it would fail."""
    folder = tmp_path / "other-base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "model.safetensors").write_bytes(b"\0" * 16)
    return folder


def test_redis_not_reachable(other_base_model: Path) -> None:
    """No server: its address is named, and no model is loaded first."""
    ended = run("--redis-url", "redis://127.0.0.1:1/0", "--base-model", str(other_base_model))
    assert ended.returncode == 1
    assert "127.0.0.1:1" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_wrong_password(other_base_model: Path) -> None:
    """A wrong password is told without being shown."""
    with running_server("--requirepass", "right-one") as url:
        wrong = url.replace("redis://", "redis://:wrong-one@")
        ended = run("--base-model", str(other_base_model), LORAPOOL_REDIS_URL=wrong)
    assert ended.returncode == 1
    assert "refused user or password" in ended.stderr
    assert "wrong-one" not in ended.stderr + ended.stdout


async def test_another_base_model_for_the_pool(redis_url: str, redis: Redis, other_base_model: Path) -> None:
    """A pool has one base model: a worker with another one refuses to start and shows both."""
    with fake_worker(redis_url) as worker:
        await alive(redis, "w1")
        assert worker.stop() == 0
    ended = run("--redis-url", redis_url, "--base-model", str(other_base_model), "--dtype", "float32")
    assert ended.returncode == 1
    assert "'fake'" in ended.stderr
    assert "'other-base'" in ended.stderr


def test_cuda_asked_but_absent(redis_url: str, other_base_model: Path) -> None:
    """A device that is not there is named, with what is."""
    ended = run("--redis-url", redis_url, "--base-model", str(other_base_model), "--device", "cuda:99")
    assert ended.returncode == 1
    assert "cuda:99" in ended.stderr
    assert "--device cpu" in ended.stderr


def test_bad_flag_value(other_base_model: Path) -> None:
    """A value out of range is a usage error that names flag field and value."""
    ended = run("--base-model", str(other_base_model), "--slots", "0")
    assert ended.returncode == 2
    assert "slots = 0" in ended.stderr


def test_no_such_base_model(redis_url: str, tmp_path: Path) -> None:
    """A folder that is not there is named."""
    ended = run("--redis-url", redis_url, "--base-model", str(tmp_path / "nowhere"))
    assert ended.returncode == 1
    assert "nowhere" in ended.stderr.replace("\n", "")


async def test_warns_of_eviction(redis_url: str, redis: Redis) -> None:
    """A server that may evict jobs is served, with a warning."""
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with fake_worker(redis_url) as worker:
            await alive(redis, "w1")
            assert worker.stop() == 0
            warnings = worker.events("redis may evict jobs: set maxmemory-policy noeviction")
    finally:
        await redis.config_set("maxmemory-policy", "noeviction")
    assert ["allkeys-lru"] == [warning["maxmemory_policy"] for warning in warnings]


async def test_check(redis_url: str, redis: Redis) -> None:
    """``lorapool-worker check`` exits 0 while the worker serves, 1 while it loads, and when it is gone."""
    said: list[str] = []

    def check() -> int:
        command = [PROGRAM, "check", "--redis-url", redis_url, "--worker-id", "w1"]
        outcome = subprocess.run(command, capture_output=True, timeout=60, cwd=ROOT, check=False, text=True)
        said.append(outcome.stdout)
        return outcome.returncode

    assert check() == 1
    await membership_of(redis, "default").join("w1", {"state": "loading", "progress": "40 %"}, 60_000, boot="1")
    assert check() == 1
    assert said[-1] == "w1: loading - 40 %\n"
    await membership_of(redis, "default").leave("w1")
    with fake_worker(redis_url) as worker:
        await alive(redis, "w1")
        assert check() == 0
        assert worker.stop() == 0
    assert check() == 1
