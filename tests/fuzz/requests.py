"""What a caller sends: requests, files of requests and of results, manifests."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from lorapool.producer.client.batch_file import BatchFile
from lorapool.producer.client.publishing import ManifestItem, read_manifest
from lorapool.producer.client.request import Request
from lorapool.shared.codec import decode_job
from lorapool.shared.errors import InvalidRequest, LorapoolError
from lorapool.shared.queue import arguments
from tests.fuzz import mutation
from tests.fuzz.target import Target

REQUESTS = (
    {"adapter": "cfo", "prompt": "How long is our runway?", "agent": "board-7", "temperature": 0.7, "top_p": 0.9,
    "top_k": 40,
     "seed": 7, "stop": ["\n\n"], "max_new_tokens": 64, "priority": "high", "delay": 1.5, "deadline": 30,
     "job_id": "mine"},
    {"adapter": None, "messages": [{"role": "user", "content": "Hello"}], "logprobs": True, "stream": True},
    {"adapter": "cfo", "messages": [{"role": "user", "content": "Rain?"}], "parallel_tool_calls": False,
     "tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"type": "null"}}}}}],
     "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}},
    ["cfo", "How long?"],
)  # fmt: skip
RESULT = {"line": 1, "job_id": "f01", "ok": True, "text": "yes", "tries": 0}
ITEM = {
    "id": "cfo", "uri": "./cfo", "version": "1.0.0", "aliases": ["chief"], "owner": "board", "metadata": {"team": "a"},
    "digest": None, "prompt_format": {"kind": "raw"}, "parents": [],
}  # fmt: skip
TOML = b'[[adapters]]\nid = "cfo"\nuri = "./cfo"\naliases = ["chief"]\n[adapters.metadata]\nteam = "a"\n'


def check_request(item: Any) -> None:
    """Refused by name, or a job that can be sent, and that a worker reads as it was."""
    job = Request.of(item).job(ref="_base", agent="anonymous", client="client-1")
    packed = arguments.of_job(job)
    assert job.model_copy(update={"params": job.params}).id in packed
    payload = packed[-1]
    assert isinstance(payload, bytes)
    decode_job(payload)


def draw_lines(*samples: Any) -> Callable[[Random], bytes]:
    """A file of JSON lines, changed as values or as bytes, sometimes cut off."""

    def draw(random: Random) -> bytes:
        texts = [
            json.dumps(mutation.changed(random, random.choice(samples))).encode() for _ in range(random.randrange(5))
        ]
        texts += mutation.lines(random, [json.dumps(sample).encode() for sample in samples], 3)
        return b"\n".join(texts) + random.choice((b"\n", b"", b"\r\n", b"\xff"))

    return draw


def check_batch(text: bytes) -> None:
    """Each line is arguments or its own refusal, and either can be written down."""
    with tempfile.TemporaryDirectory(prefix="lorapool-fuzz-") as folder:
        jobs, results = Path(folder, "jobs.jsonl"), Path(folder, "results.jsonl")
        jobs.write_bytes(text)
        batch = BatchFile(jobs, results, {"agent": "batch"})
        batch.count()
        with jobs.open("rb") as opened:
            for line in batch._lines(opened):
                outcome = _refusal(line.arguments)
                if outcome is not None:
                    json.dumps(batch._record(line, outcome), ensure_ascii=False)


def _refusal(said: dict[str, Any] | InvalidRequest) -> LorapoolError | None:
    if isinstance(said, InvalidRequest):
        return said
    try:
        Request.of(said).job(ref="_base", agent="anonymous", client="client-1")
    except LorapoolError as error:
        return error
    return None


def check_results(text: bytes) -> None:
    """A results file of another kind is refused; one that was cut off loses its last line."""
    with tempfile.TemporaryDirectory(prefix="lorapool-fuzz-") as folder:
        jobs, results = Path(folder, "jobs.jsonl"), Path(folder, "results.jsonl")
        jobs.write_bytes(b"{}\n")
        results.write_bytes(text)
        BatchFile(jobs, results, {}, retry_errors=True)


def draw_manifest(random: Random) -> tuple[str, bytes]:
    if random.random() < 0.3:
        return ".toml", mutation.changed_bytes(random, TOML)
    items: Any = random.choice(([ITEM, ITEM], {"adapters": [ITEM]}))
    if random.random() < 0.3:
        return ".json", mutation.changed_bytes(random, json.dumps(items).encode())
    return ".json", json.dumps(mutation.changed(random, items)).encode()


def check_manifest(case: tuple[str, bytes]) -> None:
    """Refused as a whole, or each item is one or its own refusal."""
    suffix, text = case
    with tempfile.TemporaryDirectory(prefix="lorapool-fuzz-") as folder:
        path = Path(folder, f"manifest{suffix}")
        path.write_bytes(text)
        for item in read_manifest(path):
            assert isinstance(item, ManifestItem) or isinstance(item.outcome, LorapoolError)


TARGETS = (
    Target("request", mutation.one_of(*REQUESTS), check_request),
    Target("batch_file", draw_lines(*REQUESTS), check_batch),
    Target("results_file", draw_lines(RESULT), check_results),
    Target("manifest", draw_manifest, check_manifest),
)
