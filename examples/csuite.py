"""Five executives, one base model: how agents may work together, and what happens when things fail. ``make csuite``.

Read it from ``discuss`` downwards: each function is one way of working. ``parallel`` asks all at once, ``sequential``
lets each hear the others, ``routed`` has an orchestrator say who speaks, ``volley`` sends one prompt to every adapter.
``missing_and_late`` asks an adapter that is not there and lets a deadline pass; ``killed`` kills a worker midway.
The end is a reckoning: hit rate, counters and costs, all as counted by the pool.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from rich.text import Text

from examples.base_model import prepare
from examples.demo import ADAPTERS, ANSWER_TIMEOUT_S, COUNTERS
from examples.screen import Screen, counters_table, facts_table, residency
from examples.voices import VOICES
from lorapool.producer import Client, JobHandle, LorapoolError, Result
from lorapool.producer.local.process import LocalProcess, ProcessEnded, scratch_folder
from lorapool.producer.local.server import embedded_server
from lorapool.producer.local.worker import OFFLINE, worker_process

ROLES = tuple(VOICES)  # ceo cfo coo cmo cto: each an adapter, an alias in capitals, and an agent
QUESTION = "We can spend $10M on a new AI product line. What is your advice?"
WORKERS = ("worker-a", "worker-b")  # one of them will be killed
TURNS = 3  # that the orchestrator may give the floor
BEAT_S = 0.5
Answer = TypeVar("Answer")
LEASE_S = 3.0  # how long a dead worker's jobs stay with it; 15 s unless told


def main() -> int:
    """Run the whole discussion; 0 when all went as it should, the failures included."""
    options = _options()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two workers here: idle threads leave the cores to the other
    screen = Screen()
    try:
        with scratch_folder() as folder, embedded_server(folder) as url:
            screen.say(f"server: embedded Valkey on {url}")
            flags = ["--redis-url", url, "--base-model", str(prepare()), "--adapter-root", str(ADAPTERS)]
            flags += ["--slots", "4", "--dtype", "float32", "--beat", str(BEAT_S), "--lease", str(LEASE_S)]
            first, second = ([*flags, "--worker-id", name] for name in WORKERS)
            with (
                worker_process(first, folder, WORKERS[0], environment=OFFLINE) as a,
                worker_process(second, folder, WORKERS[1], environment=OFFLINE) as b,
            ):
                asyncio.run(discuss(url, screen, {WORKERS[0]: a, WORKERS[1]: b}, options.tokens))
    except KeyboardInterrupt:
        screen.say("interrupted; everything is stopped")
        return 130
    except (LorapoolError, ProcessEnded, OSError, TimeoutError) as error:
        screen.say(f"the discussion failed: {error}")
        return 1
    screen.say("done; nothing is left running")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.csuite", description=__doc__)
    parser.add_argument("--tokens", type=int, default=48, metavar="N", help="at most N new tokens an answer")
    return parser.parse_args()


async def discuss(url: str, screen: Screen, workers: Mapping[str, LocalProcess], tokens: int) -> None:
    """Register the five, then every way of working in turn."""
    async with Client(url) as pool:
        await _until(lambda: _all_live(pool, workers))
        for role in ROLES:
            await pool.adapters.register(role, ADAPTERS / role, version="1.0.0", aliases=[role.upper()])
        screen.say(f"two workers of four adapter slots each, five adapters: {', '.join(ROLES)}")
        screen.show(f"\n          {QUESTION}\n")
        answers = await parallel(pool, screen, tokens)
        await sequential(pool, screen, tokens)
        await routed(pool, screen, tokens)
        await volley(pool, screen, tokens)
        await missing_and_late(pool, screen)
        await killed(pool, screen, workers, answers)
        await reckoning(pool, screen, url)


def ask(role: str, text: str, tokens: int) -> dict[str, Any]:
    """What ``role``'s agent asks of the adapter that its role stands for: arguments of ``submit``."""
    messages = [{"role": "user", "content": text}]
    return {"adapter": role.upper(), "messages": messages, "agent": f"{role}-agent", "max_new_tokens": tokens}


async def parallel(pool: Client, screen: Screen, tokens: int) -> list[Result]:
    """One question to all five, in one call; five adapters share a batch, and the answers come back in order."""
    screen.say("PARALLEL: all five answer at the same time")
    began_s = time.monotonic()
    outcomes = await pool.gather([ask(role, QUESTION, tokens) for role in ROLES], timeout=ANSWER_TIMEOUT_S)
    answers = [_result(answer) for answer in outcomes]
    for role, answer in zip(ROLES, answers, strict=True):
        screen.answer(role, answer)
    screen.say(f"five answers in {time.monotonic() - began_s:.1f} s")
    return answers


async def sequential(pool: Client, screen: Screen, tokens: int) -> None:
    """Each hears what the others have said. Costs time: no answer can begin before the one before it has ended."""
    screen.say("SEQUENTIAL: each hears those before it")
    statements: list[str] = []
    began_s = time.monotonic()
    for role in ROLES:
        context = f"{QUESTION}\n\nSaid so far:\n" + "\n".join(statements) if statements else QUESTION
        job = await pool.submit(**ask(role, context, tokens))
        answer = await job.result(ANSWER_TIMEOUT_S)
        screen.answer(role, answer)
        statements.append(f"{role.upper()}: {answer.text.strip()}")
    screen.say(f"five answers in {time.monotonic() - began_s:.1f} s, the last after reading the other four")


async def routed(pool: Client, screen: Screen, tokens: int) -> None:
    """The base model, as orchestrator, names who speaks next.

    It is small: an answer in which no name is found is said to be that, and the next in line has the floor.
    """
    screen.say("ROUTED: an orchestrator gives the floor")
    left, named = list(ROLES), 0
    for _ in range(TURNS):
        job = await pool.submit(None, _routing_prompt(left), agent="orchestrator", max_new_tokens=6)
        reply = (await job.result(ANSWER_TIMEOUT_S)).text
        role = named_role(reply, left)
        named += role is not None
        because = "names" if role else "names nobody who has not spoken; next in line is"
        role = role or left[0]
        screen.show(Text(f"orchestrator › {reply.strip()!r} {because} {role.upper()}", style="bold"))
        left.remove(role)
        job = await pool.submit(**ask(role, QUESTION, tokens))
        screen.answer(role, await job.result(ANSWER_TIMEOUT_S))
    screen.say(f"the orchestrator named {named} of {TURNS} speakers, {TURNS - named} came by the fallback")


def _routing_prompt(left: list[str]) -> str:
    """Raw text with examples, which a small base model continues better than it follows an instruction."""
    known = {
        "prices and cash": "cfo",
        "servers and code": "cto",
        "advertising": "cmo",
        "deliveries": "coo",
        "vision": "ceo",
    }
    examples = "\n".join(f"Topic: {topic}. Speaker: {role.upper()}" for topic, role in known.items() if role in left)
    return f"{examples}\nTopic: {QUESTION} Speaker:"


def named_role(reply: str, left: list[str]) -> str | None:
    """The first role in the orchestrator's answer that has not spoken yet; None if there is none."""
    words = [word.lower() for word in re.findall(r"[A-Za-z]+", reply)]
    return next((word for word in words if word in left), None)


async def volley(pool: Client, screen: Screen, tokens: int) -> None:
    """The same prompt to every adapter and to the base model: what differs is the adapter, and nothing else."""
    screen.say("VOLLEY: one prompt to five adapters, and to the base model")
    everyone = [*(role.upper() for role in ROLES), None]
    who = [{"role": "user", "content": "Who are you?"}]
    answers = await pool.volley(
        messages=who, adapters=everyone, agent="orchestrator", max_new_tokens=tokens, timeout=ANSWER_TIMEOUT_S
    )
    texts = [_result(answer).text.strip() for answer in answers]
    screen.show(facts_table({name or "BASE": text for name, text in zip(everyone, texts, strict=True)}))
    screen.say(f"{len(set(texts))} different answers of {len(texts)}")


async def missing_and_late(pool: Client, screen: Screen) -> None:
    """An adapter that is not there, a deadline that passes: each an error in its answer's place."""
    screen.say("FAILURE 1: the CHRO has no adapter; the others are not held up by it")
    requests = [ask(role, QUESTION, 8) for role in ("ceo", "chro", "cto")]
    _show(screen, ["ceo", "chro", "cto"], await pool.gather(requests, timeout=ANSWER_TIMEOUT_S))
    screen.say("FAILURE 2: an answer that would take far longer than its deadline of half a second")
    late = ask("cfo", QUESTION, 1500) | {"ignore_eos": True, "deadline": 0.5}
    _show(screen, ["cfo"], await pool.gather([late], timeout=ANSWER_TIMEOUT_S))


async def killed(pool: Client, screen: Screen, workers: Mapping[str, LocalProcess], before: list[Result]) -> None:
    """A worker dies in the middle of its answers. They are asked as in ``parallel``, but for thrice the tokens."""
    screen.say("FAILURE 3: a worker is killed in the middle of its answers")
    tokens = 3 * max(answer.usage.completion_tokens for answer in before)
    longer = [ask(role, QUESTION, tokens) | {"ignore_eos": True, "stream": True} for role in ROLES]
    jobs = [job for job in await pool.submit_many(longer) if isinstance(job, JobHandle)]
    victim = await _first_to_speak(jobs)
    workers[victim].kill()
    screen.say(f"{victim} is dead; what it held comes back when its lease of {LEASE_S:g} s has run out")
    after = [_result(answer) for answer in await pool.gather(jobs, timeout=ANSWER_TIMEOUT_S)]
    for role, answer in zip(ROLES, after, strict=True):
        screen.show(f"          {role.upper()}: answered by {answer.worker}, attempt {answer.attempts}")
    again = sum(answer.attempts > 1 for answer in after)
    same = sum(late.text.startswith(early.text) for early, late in zip(before, after, strict=True))
    screen.say(f"{len(after)} of {len(ROLES)} answered, {again} by a second attempt")
    screen.say(f"{same} of {len(ROLES)} begin with the very words of the parallel round")


def _show(screen: Screen, roles: list[str], answers: list[Result | LorapoolError]) -> None:
    for role, answer in zip(roles, answers, strict=True):
        if isinstance(answer, Result):
            screen.answer(role, answer)
        else:
            screen.failure(role, answer)


async def _first_to_speak(jobs: list[JobHandle]) -> str:
    """The worker whose words come first."""
    listening = {asyncio.create_task(anext(job.stream(ANSWER_TIMEOUT_S))): job for job in jobs}
    done, _ = await asyncio.wait(listening, return_when=asyncio.FIRST_COMPLETED)
    for task in listening:
        task.cancel()
    return str((await listening[done.pop()].record())["worker"])


async def reckoning(pool: Client, screen: Screen, url: str) -> None:
    """Hit rate, counters and costs, from what the pool has counted."""
    await asyncio.sleep(2 * BEAT_S)  # the workers' own numbers come with their next heartbeat
    stats = await pool.all_stats()
    screen.say("THE RECKONING: what was counted")
    screen.show(facts_table(residency([stats[f"{role}@1.0.0"] for role in ROLES], await pool.workers())))
    screen.show("")
    screen.show(counters_table({ref: _texts(counters) for ref, counters in stats.items()}, COUNTERS))
    screen.say("what it cost, by the command that works from any shell:")
    screen.show(Text("$ lorapool cost", style="bold"))
    lorapool = str(Path(sys.executable).parent / "lorapool")
    environment = {**os.environ, "LORAPOOL_REDIS_URL": url, "COLUMNS": str(screen.console.width)}
    await asyncio.to_thread(subprocess.run, [lorapool, "cost"], env=environment, check=True)


def _texts(counters: Mapping[str, float]) -> dict[str, str]:
    return {name: f"{value:.0f}" for name, value in counters.items()}


def _result(answer: Result | LorapoolError) -> Result:
    if isinstance(answer, LorapoolError):
        raise answer
    return answer


async def _all_live(pool: Client, workers: Mapping[str, LocalProcess]) -> bool:
    """Whether every worker has its model and beats. Raises ProcessEnded for one that ended instead."""
    for process in workers.values():
        process.check()
    return [beat["state"] for beat in await pool.workers()] == ["running"] * len(workers)


async def _until(question: Callable[[], Awaitable[Answer]]) -> Answer:
    """Ask until the answer is true; returns it. Raises TimeoutError."""
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        while True:
            answer = await question()
            if answer:
                return answer
            await asyncio.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
