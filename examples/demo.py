"""Five agents, five LoRA adapters, one base model, one command: ``make demo``.

Starts an embedded server and one worker whose device holds fewer adapters than there are, registers the adapters,
lets all agents ask at once, shows answers and counters, asks once more over HTTP, and stops what it started.
``--agents N`` asks with N agents instead (see ``fleet.py``); ``--redis-url`` uses a server that is there already.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import shlex
import signal
import sys
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from redis.asyncio import Redis

from examples.base_model import prepare
from examples.by_http import ask_by_curl, gateway
from examples.fleet import BEAT_S, fleet
from examples.screen import COLOURS, Screen, counters_table, facts_table, provenance, residency, times
from examples.voices import UNSEEN, VOICES
from lorapool.producer import Client, JobHandle
from lorapool.producer.local.process import LocalProcess, ProcessEnded, scratch_folder
from lorapool.producer.local.server import embedded_server
from lorapool.producer.local.worker import OFFLINE, worker_process
from lorapool.shared.errors import LorapoolError
from lorapool.shared.job import BASE_REF, Result
from lorapool.shared.redaction import redact
from lorapool.shared.server.keys import Keys

ADAPTERS = Path(__file__).parent / "adapters"
STREAMER = "ceo"  # whose answer is shown token by token
SHOWN = "cfo"  # whose counters are shown as redis-cli prints them
QUESTION = UNSEEN[4]
MORE_QUESTIONS = UNSEEN[5:9]
WORKER = f"demo-{secrets.token_hex(3)}"
MAX_NEW_TOKENS = 56
ANSWER_TIMEOUT_S = 240.0
START_TIMEOUT_S = 240.0
COUNTERS = (
    "submitted", "succeeded", "failed", "prompt_tokens", "completion_tokens",
    "slot_hits", "slot_misses", "load_ms", "first_token_ms", "total_ms",
)  # fmt: skip


def main() -> int:
    """Run the demo; 0 when every agent got its answer."""
    options = _options()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # all leave by the door of Ctrl-C
    screen = Screen()
    try:
        with scratch_folder() as folder:
            _run(options, screen, folder)
    except KeyboardInterrupt:
        screen.say("interrupted; everything is stopped")
        return 130
    except (LorapoolError, ProcessEnded, OSError, TimeoutError) as error:
        screen.say(f"the demo failed: {error}")
        return 1
    screen.say("done; nothing is left running")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("--agents", type=_count, metavar="N", help="N agents with an adapter each, instead of the five")
    parser.add_argument("--redis-url", metavar="URL", help="a server that is there, instead of the embedded one")
    parser.add_argument("--port", type=int, metavar="N", help="port of the embedded server (default: a free one)")
    parser.add_argument(
        "--http-port", type=int, metavar="N", default=0, help="port of the gateway (default: a free one)"
    )
    parser.add_argument("--pool", help="default: `default`; on a server of yours `demo`")
    parser.add_argument("--slots", type=_count, metavar="N", help="adapters on the device at once (3, or N / 10)")
    parser.add_argument("--keep", action="store_true", help="wait for Enter before stopping, to look with redis-cli")
    options = parser.parse_args()
    options.pool = options.pool or ("demo" if options.redis_url else "default")
    options.slots = options.slots or max(3, (options.agents or 0) // 10)
    return options


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 1000")
    return number


def _run(options: argparse.Namespace, screen: Screen, folder: Path) -> None:
    """The phases; processes live exactly as long as their ``with``."""
    screen.say("base model: SmolLM2-135M-Instruct")
    base_model = prepare()
    if options.redis_url:
        screen.say(f"server: {redact(options.redis_url)}, pool {options.pool}")
        asyncio.run(_reach(options.redis_url, options.pool))
        _with_worker(options, screen, folder, base_model, options.redis_url)
        return
    with embedded_server(folder, options.port) as url:
        screen.say(f"server: embedded Valkey on {url}")
        _with_worker(options, screen, folder, base_model, url)


def _with_worker(options: argparse.Namespace, screen: Screen, folder: Path, base_model: Path, url: str) -> None:
    arguments = ["--redis-url", url, "--pool", options.pool, "--base-model", str(base_model)]
    arguments += ["--slots", str(options.slots), "--worker-id", WORKER, "--beat", str(BEAT_S)]
    arguments += ["--adapter-root", str(ADAPTERS), "--adapter-root", str(folder)]
    with worker_process(arguments, folder, environment=OFFLINE) as worker:
        screen.say(f"worker: starting, {options.slots} adapter slots on its device")
        asyncio.run(_ask(options, screen, folder, url, worker))


async def _reach(url: str, pool: str) -> None:
    """Raise RedisUnreachable now rather than after a worker has loaded its model."""
    async with Client(url, pool=pool):
        pass


async def _ask(options: argparse.Namespace, screen: Screen, folder: Path, url: str, worker: LocalProcess) -> None:
    async with Client(url, pool=options.pool) as pool:
        facts = await _ready(pool, worker, screen)
        screen.say(f"worker: ready on {facts.get('device', 'its device')}, {facts.get('dtype', '')}")
        asking = fleet(pool, screen, ADAPTERS, folder, options.agents) if options.agents else _five(pool, screen)
        await _while_alive(worker, asking)
        if not options.agents:
            await _show_counters(pool, url, options.pool, screen)
            async with gateway(pool, options.http_port) as http:
                screen.say(f"gateway: OpenAI's API on {http}/v1, the pool in your browser on {http}/console")
                await _while_alive(worker, ask_by_curl(http, STREAMER, QUESTION, screen))
                await _kept(options, screen)
        else:
            await _kept(options, screen)


async def _kept(options: argparse.Namespace, screen: Screen) -> None:
    if options.keep:
        screen.say("kept running for you to look; press Enter to stop")
        await asyncio.to_thread(sys.stdin.readline)


async def _ready(pool: Client, worker: LocalProcess, screen: Screen) -> Mapping[str, object]:
    """Wait for the worker's first heartbeat; its fields."""
    with screen.console.status("loading the base model"):
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                worker.check()
                for facts in await pool.workers():
                    if (facts["worker"], facts["state"]) == (WORKER, "running"):
                        return facts
                await asyncio.sleep(0.1)


async def _while_alive(worker: LocalProcess, asking: Coroutine[None, None, None]) -> None:
    """Await ``asking``, unless the worker ends before it: then raise ProcessEnded."""
    task = asyncio.create_task(asking)
    try:
        while not task.done():
            worker.check()
            await asyncio.wait({task}, timeout=0.5)
        await task
    finally:
        task.cancel()


async def _five(pool: Client, screen: Screen) -> None:
    """Register the five, ask one question of all at the same time, then twenty more."""
    for role in VOICES:
        record = await pool.adapters.register(role, ADAPTERS / role, version="1.0.0", aliases=[role.upper()])
        screen.say(f"adapter: {record.ref}, sha256 {record.digest[:12]}…, rank {record.rank}, alias {role.upper()}")
    screen.say("five agents, and a sixth without an adapter, ask at the same time:")
    screen.show(f"\n          {QUESTION}\n")
    streamed = await _submit(pool, STREAMER, stream=True)
    others = [role for role in VOICES if role != STREAMER]
    asked = asyncio.gather(*(_answer(pool, role) for role in [*others, None]))
    try:
        await _show_stream(streamed, screen)
        for role, answer in zip([*others, "base"], await asked, strict=True):
            screen.answer(role, answer)
    finally:
        asked.cancel()
    await _twenty_more(pool, screen)


async def _submit(pool: Client, role: str | None, *, stream: bool = False) -> JobHandle:
    """The question, from the agent of that role to the alias of its adapter; None asks the base model."""
    adapter, agent = (role.upper(), f"{role}-agent") if role else (None, "visitor")
    messages = [{"role": "user", "content": QUESTION}]
    return await pool.submit(adapter, messages=messages, agent=agent, stream=stream, max_new_tokens=MAX_NEW_TOKENS)


async def _answer(pool: Client, role: str | None) -> Result:
    job = await _submit(pool, role)
    return await job.result(ANSWER_TIMEOUT_S)


async def _show_stream(job: JobHandle, screen: Screen) -> None:
    """An answer on the screen as its tokens come."""
    screen.stream(f"{STREAMER.upper()} › ", f"bold {COLOURS[STREAMER]}")
    async for delta in job.stream(ANSWER_TIMEOUT_S):
        screen.stream(delta.text, COLOURS[STREAMER])
    result = await job.result(ANSWER_TIMEOUT_S)
    screen.show(f"      (as it came)  {provenance(result)}\n      {times(result)}\n")


async def _twenty_more(pool: Client, screen: Screen) -> None:
    """Four questions a role, shuffled together: how often did a job find its adapter on the device?"""
    requests = [
        {"adapter": role.upper(), "messages": [{"role": "user", "content": question}], "agent": f"{role}-agent",
         "max_new_tokens": MAX_NEW_TOKENS}
        for question in MORE_QUESTIONS for role in VOICES
    ]  # fmt: skip
    screen.say(f"the five ask {len(requests)} more, all at once")
    began_s = time.monotonic()
    results = await pool.gather(requests, timeout=ANSWER_TIMEOUT_S)
    took_s = time.monotonic() - began_s
    answers = [result for result in results if isinstance(result, Result)]
    if len(answers) < len(requests):
        raise next(error for error in results if isinstance(error, LorapoolError))
    tokens = sum(result.usage.completion_tokens for result in answers)
    screen.say(f"{len(answers)} answers, {tokens} tokens in {took_s:.1f} s: {tokens / took_s:.0f} tokens/s")


async def _show_counters(pool: Client, url: str, name: str, screen: Screen) -> None:
    """The counters that Redis holds, by the command that anyone may type."""
    keys, refs = Keys(name), [f"{role}@1.0.0" for role in VOICES]
    async with Redis.from_url(url, decode_responses=True) as redis:
        stats = {ref: await redis.execute_command("HGETALL", keys.stats(ref)) for ref in [*refs, BASE_REF]}
    screen.say("what Redis counted, by the command that works from any shell:")
    shown = f"{SHOWN}@1.0.0"
    screen.redis_cli(f"{_redis_cli(url)} HGETALL {shlex.quote(keys.stats(shown))}", stats[shown])
    screen.show("\nthe same of all, a key a column (times are sums, in ms):")
    screen.show(counters_table(stats, COUNTERS))
    screen.show("")
    await asyncio.sleep(BEAT_S)  # the worker's own numbers come with its next heartbeat
    screen.show(facts_table(residency([stats[ref] for ref in refs], await pool.workers())))


def _redis_cli(url: str) -> str:
    """``redis-cli`` with what reaches that server; a password stays out of it."""
    parts = urlsplit(url)
    host = f" -h {parts.hostname}" if parts.hostname not in (None, "localhost", "127.0.0.1") else ""
    database = parts.path.strip("/")
    return f"redis-cli{host} -p {parts.port or 6379}{f' -n {database}' if database not in ('', '0') else ''}"


if __name__ == "__main__":
    sys.exit(main())
