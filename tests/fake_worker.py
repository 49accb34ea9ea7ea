"""A real worker over the fake runner: ``python -m tests.fake_worker '{"redis_url": …, "worker": {…}}'``.

Everything but the model is the product's: engine, adapter cache, all loops, signals. Starts in well under a second.
Any process can say what an answer must be: ``expected``. A prompt that begins with POISON kills the worker, one with
BROKEN makes every step that it is part of raise, and one with UNREADABLE the tokenizer.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from typing import Any

from lorapool.shared import logs
from lorapool.shared.catalog import AdapterRecord, PoolConfig
from lorapool.shared.job import Job
from lorapool.shared.prompt_format import PromptFormat
from lorapool.shared.settings import redis_settings
from lorapool.worker.adapter_source import AdapterSource
from lorapool.worker.adapters import AdapterCache
from lorapool.worker.cli import serve
from lorapool.worker.config import WorkerConfig
from lorapool.worker.engine import Engine
from lorapool.worker.model import Loaded
from lorapool.worker.scheduler import Scheduler
from lorapool.worker.sequence import Batch, Drawn
from tests.fake_runner import FakeRunner, FakeStore, WordDetokenizer, completion

POISON, BROKEN, UNREADABLE = "poison", "broken", "unreadable"


def prompt_ids(text: str) -> list[int]:
    return list(text.encode())


def expected(prompt: str, digest: str, count: int) -> tuple[int, ...]:
    """The tokens of a right answer; ``digest`` is empty for the base model."""
    return tuple(completion(prompt_ids(prompt), digest, count))


class FakeTokenizer:
    """A byte is a token; chats need an adapter's own format."""

    def encode(self, job: Job, form: PromptFormat | None = None) -> list[int]:
        if job.messages is not None and form is not None:
            return prompt_ids(form.render(job.messages))
        assert job.prompt is not None
        assert not job.prompt.startswith(UNREADABLE)
        return prompt_ids(job.prompt)

    def detokenizer(self) -> WordDetokenizer:
        return WordDetokenizer()


@dataclass(frozen=True)
class FakeWeights:
    digest: str
    nbytes: int = 1000


class DeadlyRunner(FakeRunner):
    """Takes the whole process down with a poisonous prompt, as a bad kernel does, and raises at a broken one."""

    def step(self, batch: Batch) -> list[Drawn]:
        prompts = [bytes(work.sequence.prompt_ids).decode() for work in batch.works]
        if any(prompt.startswith(POISON) for prompt in prompts):
            os.kill(os.getpid(), signal.SIGKILL)
        if any(prompt.startswith(BROKEN) for prompt in prompts):
            raise RuntimeError("broken on purpose")
        return super().step(batch)


@dataclass(frozen=True)
class FakeModel:
    """A Model without one. ``base_model`` is what the pool is told, ``device`` what each result is."""

    config: WorkerConfig
    step_s: float = 0.0
    base_model: str = "fake"
    max_model_len: int = 4096
    device: str = "fake"

    def identify(self) -> PoolConfig:
        return PoolConfig(base_model=self.base_model, digest="0" * 64, dtype="float32")

    def load(self) -> Loaded:
        store = FakeStore(self.config.slots)
        runner = DeadlyRunner(store, step_s=self.step_s, max_model_len=self.max_model_len)
        adapters = AdapterCache(store, _weights, self.config.host_cache_bytes)
        engine = Engine(runner, adapters, Scheduler(max_batch=self.config.max_batch), frozenset())
        sizes = {"slots": self.config.slots, "max_batch": self.config.max_batch}
        facts = {"base_model": self.base_model, "device": self.device, "dtype": "float32", **sizes}
        return Loaded(engine, adapters, FakeTokenizer(), _check, self.max_model_len, facts)


def _weights(source: AdapterSource) -> FakeWeights:
    return FakeWeights(source.digest)


def _check(record: AdapterRecord) -> dict[str, int]:
    return {"rank": 4}


def main(argument: str) -> int:
    """Run until SIGTERM; the exit status."""
    options: dict[str, Any] = json.loads(argument)
    settings = redis_settings(options["redis_url"], options.get("pool"))
    fields = {"base_model": "fake", "pool": settings.pool}
    config = WorkerConfig.parse(**(fields | options["worker"]))
    logs.configure("info", json=True)
    return asyncio.run(serve(config, settings, FakeModel(config, **options.get("model", {}))))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
