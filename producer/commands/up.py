"""up: a whole pool on this machine by one command, until Ctrl-C: server, worker, maintenance, gateway and console.

Knows in which order they start and stop, and what a newcomer sees meanwhile; each is started by its own module.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from lorapool.producer.client.client import Client
from lorapool.producer.client.folder import absolute
from lorapool.producer.commands import options as o
from lorapool.producer.commands.gateway import check_installed
from lorapool.producer.commands.phases import Phases
from lorapool.producer.commands.render import failure
from lorapool.producer.commands.session import refuse
from lorapool.producer.local.adapter_folders import AdapterFolder, adapter_folders
from lorapool.producer.local.process import LocalProcess, ProcessEnded, scratch_folder
from lorapool.producer.local.server import embedded_server
from lorapool.producer.local.worker import maintenance_process, worker_process
from lorapool.shared.errors import InvalidRequest, LorapoolError

BEAT_S = 0.5
VALIDATED_AT_ONCE = 4
SHOWN_SINGLY = 12
_EXAMPLE = "How long is our runway?"

BaseModel = Annotated[str, o.flag("--base-model", "Folder of a checkpoint, or a hub id with @revision.")]
AdaptersFolder = Annotated[
    Path | None, o.flag("--adapters", "Register every PEFT folder below this one: DIR/cfo is the adapter cfo.")
]
DataFolder = Annotated[
    Path | None, o.flag("--data", "Keep what the embedded server holds in this folder (default: it goes with it).")
]
Device = Annotated[str, o.flag("--device", "auto, cpu, cuda or cuda:N.")]
Dtype = Annotated[str, o.flag("--dtype", "auto, float32, bfloat16 or float16.")]
Slots = Annotated[int, o.flag("--slots", "Adapters on the device at once.", min=1)]
MaxRank = Annotated[int, o.flag("--max-rank", "Largest rank served.", min=1)]
MaxModelLen = Annotated[int | None, o.flag("--max-model-len", "Context in tokens (default: the model's own).")]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to run. ``redis_url`` None: a server of its own."""

    worker_flags: tuple[str, ...]
    adapters: tuple[AdapterFolder, ...]
    redis_url: str | None
    pool: str
    host: str
    port: int
    data: Path | None


def up(
    *,
    base_model: BaseModel,
    adapters: AdaptersFolder = None,
    host: o.Host = "127.0.0.1",
    port: o.Port = 8080,
    device: Device = "auto",
    dtype: Dtype = "auto",
    slots: Slots = 8,
    max_rank: MaxRank = 64,
    max_model_len: MaxModelLen = None,
    data: DataFolder = None,
    redis_url: Annotated[
        str | None, o.flag("--redis-url", "Join the pool of this server, instead of one of its own.")
    ] = None,
    pool: o.Pool = None,
) -> None:
    """Have a whole pool on this machine, until Ctrl-C: server, worker, maintenance, gateway and console.

    lorapool up --base-model HuggingFaceTB/SmolLM2-135M-Instruct --adapters ./adapters
    """
    flags: dict[str, object] = {
        "--base-model": base_model, "--device": device, "--dtype": dtype, "--slots": slots, "--max-rank": max_rank,
        "--beat": BEAT_S, "--max-model-len": max_model_len,
        "--adapter-root": None if adapters is None else absolute(adapters),
    }  # fmt: skip
    given = tuple(text for name, value in flags.items() if value is not None for text in (name, str(value)))
    phases = Phases()
    try:
        check_installed(as_json=False)
        found = () if adapters is None else tuple(adapter_folders(absolute(adapters)))
        _check_free(host, port)
        with _all_leave_by_ctrl_c(), scratch_folder() as folder:
            _run(Plan(given, found, redis_url, pool or "default", host, port, data), phases, folder)
    except KeyboardInterrupt:
        pass  # it was told to end before it listened
    except ProcessEnded as error:
        failure("ProcessEnded", str(error), as_json=False)
        raise typer.Exit(1) from None
    except LorapoolError as error:
        refuse(error, as_json=False)
    phases.say("stopped; nothing is left running")


def _check_free(host: str, port: int) -> None:
    """Said at once, before a model is loaded."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InvalidRequest(
                f"{host}:{port} cannot be listened on ({error.strerror}): give another --port"
            ) from None


@contextmanager
def _all_leave_by_ctrl_c() -> Iterator[None]:
    """SIGTERM and SIGHUP end it as Ctrl-C does, in order."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(plan: Plan, phases: Phases, folder: Path) -> None:
    """Processes live exactly as long as their ``with``."""
    own = plan.redis_url is None
    with embedded_server(folder, data=plan.data) if own else nullcontext(plan.redis_url or "") as url:
        if own:
            kept = f"keeps its data in {plan.data}" if plan.data else "its data goes with it; --data FOLDER keeps it"
            phases.say(f"server: embedded Valkey on {url} ({kept})")
        asyncio.run(_reach(url, plan.pool))
        name = f"up-{secrets.token_hex(3)}"
        environment = {"LORAPOOL_REDIS_URL": url, "LORAPOOL_POOL": plan.pool}
        with ExitStack() as processes:
            flags = ["--worker-id", name, *plan.worker_flags]
            worker = processes.enter_context(worker_process(flags, folder, environment=environment))
            started = [worker]
            if own:  # a pool that is joined has its own
                started.append(processes.enter_context(maintenance_process((), folder, environment=environment)))
            asyncio.run(_serve(plan, phases, url, started, name))


async def _reach(url: str, pool: str) -> None:
    """Raise RedisUnreachable now rather than after a worker has loaded its model."""
    async with Client(url, pool=pool):
        pass


async def _serve(plan: Plan, phases: Phases, url: str, started: Sequence[LocalProcess], name: str) -> None:
    async with Client(url, pool=plan.pool) as client:
        facts = await _ready(client, phases, started, name)
        phases.say(f"worker: ready on {facts.get('device')}, {facts.get('dtype')}, {facts.get('slots')} adapter slots")
        await _register(client, phases, plan.adapters)
        await _until_told(plan, phases, client, started)


async def _ready(client: Client, phases: Phases, started: Sequence[LocalProcess], name: str) -> Mapping[str, Any]:
    """Wait for its first beat as one that serves, showing how far it is; its fields."""
    with phases.status("worker: starting") as show:
        while True:
            _check(started)
            for facts in await client.workers():
                if facts["worker"] == name:
                    if facts["state"] == "running":
                        return facts
                    show(f"worker: {facts.get('progress') or 'starting'}")
            await asyncio.sleep(0.2)


async def _register(client: Client, phases: Phases, found: Sequence[AdapterFolder]) -> None:
    """All, a few at a time; one that is refused is said and keeps no other back."""
    if not found:
        return
    room, ready, shown = asyncio.Semaphore(VALIDATED_AT_ONCE), 0, len(found) <= SHOWN_SINGLY

    async def one(folder: AdapterFolder, show: Any) -> None:
        nonlocal ready
        async with room:
            try:
                record = await client.adapters.register(folder.id, folder.path, version=folder.version)
            except LorapoolError as error:
                phases.say(f"adapter: {folder.id}@{folder.version} is not served: {error}", style="red")
                return
            ready += 1
            show(f"adapters: {ready} of {len(found)} checked")
            if shown:
                phases.say(f"adapter: {record.ref}, sha256 {record.digest[:12]}…, rank {record.rank}")

    with phases.status(f"adapters: checking {len(found)}") as show:
        await asyncio.gather(*(one(folder, show) for folder in found))
    if not shown:
        phases.say(f"adapters: {ready} of {len(found)} ready")


async def _until_told(plan: Plan, phases: Phases, client: Client, started: Sequence[LocalProcess]) -> None:
    """Serve until Ctrl-C, or until a process ends: then raise ProcessEnded."""
    from lorapool.producer.gateway.server import serve
    from lorapool.producer.gateway.settings import GatewaySettings

    def ready(url: str) -> None:
        phases.say(f"gateway: OpenAI's API on {url}/v1, console on {url}/console")
        phases.show(_how_to_ask(url, plan.adapters))

    serving = asyncio.create_task(serve(client, GatewaySettings(host=plan.host, port=plan.port), ready=ready))
    watching = asyncio.create_task(_ended(started))
    try:
        await asyncio.wait({serving, watching}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        watching.cancel()
    if watching.done() and not watching.cancelled():
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await watching
    phases.say("stopping: what is asked ends, the worker gives back what it has not finished")
    await serving


async def _ended(started: Sequence[LocalProcess]) -> None:
    while True:
        _check(started)
        await asyncio.sleep(0.5)


def _check(started: Sequence[LocalProcess]) -> None:
    for process in started:
        process.check()


def _how_to_ask(url: str, found: Sequence[AdapterFolder]) -> str:
    model = found[0].id if found else "_base"
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "{_EXAMPLE}"}}]}}'
    asked = f"  curl {url}/v1/chat/completions -H 'content-type: application/json' \\\n    -d '{body}'"
    return f"\n{asked}\n\nCtrl-C ends it all.\n"
