"""A gateway that is killed in the middle of a response's stream: another goes on, nothing twice."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lorapool.producer.testing import CannedPool
from tests.clients.running import gateway

WORDS = " ".join(f"word{at}" for at in range(60))


@pytest.fixture
def pool(redis_url: str) -> Iterator[CannedPool]:
    with CannedPool(redis_url, "default") as pool:
        pool.answer("cfo", WORDS)
        pool.delay_s = 10.0
        yield pool


def read(answer: httpx.Response, *, until_texts: int | None = None) -> list[dict[str, Any]]:
    """The stream's events, as far as it comes, or until there were so many deltas."""
    events: list[dict[str, Any]] = []
    for line in answer.iter_lines():
        if line.startswith("data: "):
            events.append(json.loads(line[6:]))
        if sum("delta" in event for event in events) == until_texts:
            break
    return events


@pytest.mark.long
def test_stream_goes_on_at_another_gateway(pool: CannedPool, tmp_path: Path) -> None:
    """After kill -9, ``starting_after`` brings the rest from any other: the text is whole, no character twice."""
    asked = {"model": "cfo", "input": "Count.", "stream": True, "background": True}
    with gateway(pool.redis_url, tmp_path) as (url, process):
        with httpx.stream("POST", f"{url}/v1/responses", json=asked, timeout=60) as answer:
            events = read(answer, until_texts=5)
        process.signal(signal.SIGKILL)
    after, response_id = events[-1]["sequence_number"], events[0]["response"]["id"]
    with gateway(pool.redis_url, tmp_path) as (url, _):
        path = f"{url}/v1/responses/{response_id}"
        with httpx.stream("GET", f"{path}?stream=true&starting_after={after}", timeout=60) as answer:
            events += read(answer)
        assert WORDS == "".join(event.get("delta", "") for event in events)
        numbers = [event["sequence_number"] for event in events]
        assert numbers == sorted(set(numbers))
        assert events[-1]["response"] == httpx.get(path).json()
        assert 1 == len(pool.requests)
