"""A real worker over the fake runner: ``python -m tests.fake_worker '{"redis_url": …, "worker": {…}}'``.

Everything but the model (fake_model.py) is the product's: engine and its process, adapter cache, all loops, signals.
Starts in about a second.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from lorapool.shared import logs
from lorapool.shared.catalog.catalog import PoolConfig
from lorapool.shared.job import Job
from lorapool.shared.prompt_format import PromptFormat
from lorapool.shared.server.settings import redis_settings
from lorapool.worker.cli import serve
from lorapool.worker.config import WorkerConfig
from lorapool.worker.engine.model import OnProgress
from lorapool.worker.engine_process.supervisor import EngineProcess, Program
from lorapool.worker.host import Served
from lorapool.worker.text.template_process import COMPUTES_S, TemplateProcesses
from tests.chaos import clock
from tests.fake_model import UNREADABLE, FoundAdapters, prompt_ids, sound
from tests.fake_tokenizer import WordDetokenizer, WordSpelling


class FakeTokenizer:
    """A byte is a token; chats need an adapter's own format, and a template of its own is rendered as by any worker."""

    eos_ids = frozenset[int]()
    spelling = WordSpelling()

    def __init__(self, template_s: float) -> None:
        self._templates = TemplateProcesses(template_s)

    def encode(self, job: Job, form: PromptFormat | None = None) -> list[int]:
        if job.messages is not None and form is not None and form.template:
            messages = [message.model_dump() for message in job.messages]
            return prompt_ids(self._templates.render(form.template, messages, {}))
        if job.messages is not None and form is not None:
            return prompt_ids(form.render(job.messages))
        if job.prompt_ids is not None:
            return list(job.prompt_ids)
        assert job.prompt is not None
        assert not job.prompt.startswith(UNREADABLE)
        return prompt_ids(job.prompt)

    def detokenizer(self, *, tools: bool = False) -> WordDetokenizer:
        return WordDetokenizer()

    def tool_use(self, job: Job, job_id: str, form: PromptFormat | None = None) -> None:
        """No tools here."""


class FakeHost:
    """FakeModel in a process of its own."""

    def __init__(self, config: WorkerConfig, **options: Any) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="lorapool-device-")
        options = {"marker": str(Path(self._folder.name, "sick")), **options}
        program = Program("tests.fake_model:FakeModel", config, options)
        self._engine = EngineProcess(program, step_timeout_s=config.step_timeout_s)
        template_s = options.get("template_s", COMPUTES_S)
        self._tokenizer = FakeTokenizer(template_s)
        outline, below = options.get("outline", ""), options.get("below", "")
        self._check = FoundAdapters(config, outline, below, template_s).check if outline else sound

    async def identify(self, on_progress: OnProgress) -> PoolConfig:
        return PoolConfig.model_validate(await self._engine.identify(on_progress))

    async def load(self, on_progress: OnProgress) -> Served:
        await self._engine.load(on_progress)
        return Served(self._engine, self._tokenizer, self._check)

    async def close(self) -> None:
        await self._engine.close()
        self._folder.cleanup()


def main(argument: str) -> int:
    """Run until SIGTERM; the exit status."""
    options: dict[str, Any] = json.loads(argument)
    settings = redis_settings(options["redis_url"], options.get("pool"))
    fields = {"base_model": "fake", "pool": settings.pool}
    config = WorkerConfig.parse(**(fields | options["worker"]))
    logs.configure("info", json=True)
    if os.environ.get(clock.VARIABLE):
        clock.follow()
    return asyncio.run(serve(config, settings, FakeHost(config, **options.get("model", {}))))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
