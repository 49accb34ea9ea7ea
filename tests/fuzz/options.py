"""Settings: of the server's address, of a worker, of AOS's environment; sizes."""

from __future__ import annotations

from random import Random
from typing import Any

from lorapool.producer.client.client import Client
from lorapool.shared.errors import InvalidRequest
from lorapool.worker.config import WorkerConfig, parse_bytes
from tests.fuzz import mutation
from tests.fuzz.target import Target

URLS = (
    "redis://localhost:6379/0", "rediss://user:secret@host:6380/1?ssl_cert_reqs=none", "unix:///run/valkey.sock?db=2",
    "redis://h?socket_timeout=1&protocol=3&max_connections=x", "redis://[::1]:6379", "redis://:secret@h:99999/x",
)  # fmt: skip
POOLS = ("default", "acme", "acme.0", "a/b", "{x}", "a:b", "..")
WORKER = {
    "base_model": "org/base@main", "pool": "default", "worker_id": "w1", "device": "cpu", "dtype": "float32",
    "slots": 8,
    "max_rank": 64, "max_batch": 64, "claim_ahead": None, "lease_s": 15.0, "beat_s": 2.0,
    "adapter_roots": ["/adapters"],
    "gpu_memory_utilization": 0.9, "claim_policy": "affinity", "starvation_s": 10.0,
}  # fmt: skip
SIZES = ("2GiB", "500MB", "1048576", "1.5 GiB", "0", "-1", "1e3", "GiB", "9" * 400 + "GiB")


def draw_server(random: Random) -> tuple[str, str]:
    return mutation.changed_text(random, random.choice(URLS)), random.choice(
        (*POOLS, mutation.text(random).replace("secret", "x"))
    )


def check_server(case: tuple[str, str]) -> None:
    """Refused by name, without the password; or a client that has not connected yet."""
    url, pool = case
    said = ""
    try:
        Client(url, pool=pool)
    except InvalidRequest as error:
        said = str(error)
    assert ":secret@" not in said


def check_worker(fields: Any) -> None:
    config = WorkerConfig.parse(
        **{str(name): value for name, value in fields.items()} if isinstance(fields, dict) else {}
    )
    assert config.rows > 0 and config.lease_ms > 0


def check_size(text: str) -> None:
    assert parse_bytes(text) >= 0


def draw_size(random: Random) -> str:
    return mutation.changed_text(random, random.choice(SIZES))


TARGETS = (
    Target("settings", draw_server, check_server, allowed=(InvalidRequest,)),
    Target("worker_config", mutation.one_of(WORKER), check_worker),
    Target("sizes", draw_size, check_size),
)
