"""compose.yaml and what it starts, as far as it can be told without a Docker engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
ONE_GPU = ROOT / "deploy" / "one-gpu"


@pytest.fixture(scope="module")
def services() -> dict:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]


def test_compose_file_is_valid():
    """compose.yaml validates against the schema of the Compose specification."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"]
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_redis_keeps_what_it_accepted(services):
    """The server never evicts, syncs an append-only file on a volume each second, and has a health check."""
    redis = services["redis"]
    options = dict(zip(redis["command"][1::2], redis["command"][2::2], strict=True))
    assert options == {"--appendonly": "yes", "--appendfsync": "everysec", "--maxmemory-policy": "noeviction"}
    assert redis["volumes"] == ["redis:/data"]
    assert redis["healthcheck"]["test"] == ["CMD", "redis-cli", "ping"]


def test_redis_is_reachable_from_this_host_only(services):
    """A server without a password is not published beyond the loopback address."""
    assert all(port.startswith("127.0.0.1:") for port in services["redis"]["ports"])


def test_worker_reserves_gpus_and_can_be_scaled(services):
    """The worker asks for NVIDIA devices, and nothing in it (a name, a port) forbids a second replica."""
    worker = services["worker"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert device["capabilities"] == ["gpu"]
    assert not {"container_name", "ports"} & worker.keys()


def test_cpu_worker_is_a_profile_without_devices(services):
    """Without a GPU the same worker runs as the `cpu` profile and reserves no device."""
    worker = services["worker-cpu"]
    assert worker["profiles"] == ["cpu"]
    assert worker["environment"]["LORAPOOL_DEVICE"] == "cpu"
    assert "deploy" not in worker


def test_maintenance_needs_no_device_and_no_model(services):
    """Chores run beside any worker, from the CPU's image, as often as wanted."""
    maintenance = services["maintenance"]
    assert (["maintenance"], ["maintenance"]) == (maintenance["command"], maintenance["profiles"])
    assert services["worker-cpu"]["image"] == maintenance["image"]
    assert maintenance["environment"].keys() == {"LORAPOOL_REDIS_URL", "LORAPOOL_POOL"}
    assert not {"container_name", "ports", "deploy"} & maintenance.keys()


def test_workers_wait_for_a_healthy_server(services):
    """No worker starts before Redis answers."""
    for name in ("worker", "worker-cpu"):
        assert services[name]["depends_on"] == {"redis": {"condition": "service_healthy"}}


@pytest.fixture
def two_gpus(tmp_path) -> dict[str, str]:
    """The environment of a host with two GPUs, as one-gpu sees it."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "locks").mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl"):
        (tmp_path / "dev" / name).touch()
    return {**os.environ, "ONE_GPU_DEVICES": str(tmp_path / "dev"), "ONE_GPU_LOCKS": str(tmp_path / "locks")}


def one_gpu(environment: dict[str, str]) -> subprocess.Popen[str]:
    """A replica that tells which GPU it got and holds it until its input ends."""
    command = [str(ONE_GPU), "sh", "-c", "echo $CUDA_VISIBLE_DEVICES; read line"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, text=True, stdin=pipe, stdout=pipe, stderr=pipe)


def test_each_replica_takes_a_gpu_of_its_own(two_gpus):
    """Two replicas get two GPUs, a third is refused, and a GPU whose replica ended is taken again."""
    with one_gpu(two_gpus) as first, one_gpu(two_gpus) as second:
        got = [first.stdout.readline().strip(), second.stdout.readline().strip()]
        assert sorted(got) == ["0", "1"]
        with one_gpu(two_gpus) as third:
            assert "no free GPU among 2" in third.communicate()[1]
            assert third.returncode == 1
        first.communicate("\n")
        with one_gpu(two_gpus) as fourth:
            assert fourth.stdout.readline().strip() == got[0]
            fourth.communicate("\n")
        second.communicate("\n")
