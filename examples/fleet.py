"""``make demo AGENTS=200``: many agents, each with an adapter of its own, on one worker.

The adapters are made from the five trained ones: the weights of a role, applied at a strength of their own
(``lora_alpha``). So each has its own digest and slot and is loaded like any other, but there are five voices, not N.
Knows the client; starts and stops nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from examples.screen import Screen, facts_table, residency
from examples.voices import UNSEEN, VOICES
from lorapool.producer import Client
from lorapool.shared.errors import LorapoolError
from lorapool.shared.job import Result

QUESTIONS_EACH = 2
MAX_NEW_TOKENS = 24
TIMEOUT_S = 280.0
BEAT_S = 0.5
STRENGTHS = (0.9, 1.1)  # of the trained lora_alpha
ROLES = tuple(VOICES)


async def fleet(pool: Client, screen: Screen, trained: Path, folder: Path, agents: int) -> None:
    """Make, register and ask ``agents`` adapters; show how it went. Raises the first job's error if any failed."""
    names = [f"agent-{number:03d}" for number in range(1, agents + 1)]
    for index, name in enumerate(names):
        derive(trained / ROLES[index % len(ROLES)], folder / name, _strength(index, agents))
    screen.say(f"{agents} adapters made from the five: their weights, lora_alpha × 0.9 … 1.1")
    await _register(pool, screen, folder, names)
    screen.say(f"{agents} adapters registered, each validated by the worker")
    began_s = time.monotonic()
    results = await _ask(pool, screen, names)
    took_s = time.monotonic() - began_s
    screen.say(f"{len(results)} answers")
    await asyncio.sleep(BEAT_S)  # the worker's own numbers come with its next heartbeat
    stats = [await pool.stats(name) for name in names]
    facts = _summary(names, results, took_s) | residency(stats, await pool.workers())
    screen.show(facts_table(facts))


def _strength(index: int, agents: int) -> float:
    low, high = STRENGTHS
    return low + (high - low) * index / max(1, agents - 1)


def derive(source: Path, target: Path, strength: float) -> None:
    """The same weights (a hard link where the file system allows), another ``lora_alpha``."""
    target.mkdir()
    config = json.loads((source / "adapter_config.json").read_text())
    config["lora_alpha"] = round(config["lora_alpha"] * strength, 4)
    (target / "adapter_config.json").write_text(json.dumps(config, indent=2))
    weights = "adapter_model.safetensors"
    try:
        os.link(source / weights, target / weights)
    except OSError:
        shutil.copyfile(source / weights, target / weights)


async def _register(pool: Client, screen: Screen, folder: Path, names: Sequence[str]) -> None:
    room = asyncio.Semaphore(16)
    with _progress(screen) as progress:
        task = progress.add_task("registering", total=len(names))

        async def one(name: str) -> None:
            async with room:
                await pool.adapters.register(name, folder / name, version="1.0.0", timeout=TIMEOUT_S)
            progress.advance(task)

        await asyncio.gather(*map(one, names))


async def _ask(pool: Client, screen: Screen, names: Sequence[str]) -> list[Result]:
    """Every agent asks ``QUESTIONS_EACH`` questions, all of them at once; results in that order."""
    requests = [
        {"adapter": name, "messages": [{"role": "user", "content": UNSEEN[(index + turn) % len(UNSEEN)]}],
         "agent": name, "max_new_tokens": MAX_NEW_TOKENS}
        for turn in range(QUESTIONS_EACH) for index, name in enumerate(names)
    ]  # fmt: skip
    screen.say(
        f"{len(names)} agents ask {QUESTIONS_EACH} questions each, all at once; up to {MAX_NEW_TOKENS} new tokens"
    )
    handles = await pool.submit_many(requests, wait=True)
    with _progress(screen) as progress:
        task = progress.add_task("answering", total=len(handles))

        async def one(index: int) -> Result:
            handle = handles[index]
            if isinstance(handle, LorapoolError):
                raise handle
            result = await handle.result(TIMEOUT_S)
            progress.advance(task)
            return result

        return await asyncio.gather(*map(one, range(len(handles))))


def _summary(names: Sequence[str], results: Sequence[Result], took_s: float) -> dict[str, str]:
    tokens = sum(result.usage.completion_tokens for result in results)
    prompts = sum(result.usage.prompt_tokens for result in results)
    totals = sorted(result.timings.total_ms or 0 for result in results)
    voices = {name: VOICES[ROLES[index % len(ROLES)]] for index, name in enumerate(names)}
    in_voice = sum(voices[result.agent].opening in result.text for result in results)
    return {
        "throughput": f"{tokens / took_s:.0f} tokens/s, {len(results) / took_s:.1f} jobs/s ({took_s:.1f} s)",
        "tokens": f"{prompts} of prompts, {tokens} generated",
        "submit to answer": f"median {totals[len(totals) // 2] / 1000:.1f} s, longest {totals[-1] / 1000:.1f} s",
        "right voice": f"{in_voice} of {len(results)} answers open as their role does",
    }


def _progress(screen: Screen) -> Progress:
    columns = (TextColumn("{task.description:>12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=screen.console, transient=True, disable=not screen.console.is_terminal)
