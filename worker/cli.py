"""``lorapool-worker``: the composition root, the only place that reads the environment and builds the parts.

Each flag is also a LORAPOOL_* variable. Knows what depends on what, and in which order things are checked: Redis and
the pool's config first, the slow loading of weights last. Imports torch only once it is sure to be needed.
"""

from __future__ import annotations

import asyncio
import gc
import re
import secrets
import signal
import socket
import time
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from lorapool.shared import __version__, logs
from lorapool.shared.catalog.catalog import Catalog, PoolConfig
from lorapool.shared.connection import PoolConnection
from lorapool.shared.errors import InvalidRequest, LorapoolError
from lorapool.shared.fleet.counters import Counters
from lorapool.shared.fleet.membership import Membership
from lorapool.shared.fleet.requests import WorkerRequests
from lorapool.shared.plain_text import plain_text
from lorapool.shared.queue.operator import OperatorQueue
from lorapool.shared.queue.worker import WorkerQueue
from lorapool.shared.remote import check_place
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.server import Server
from lorapool.shared.server.settings import RedisSettings, redis_settings
from lorapool.shared.wire import explain_validation
from lorapool.worker.adapters.cache_folder import CacheFolder
from lorapool.worker.adapters.files import AdapterFiles
from lorapool.worker.adapters.judge import CHECK_S, Judge
from lorapool.worker.compose import worker_of
from lorapool.worker.config import WorkerConfig, parse_bytes
from lorapool.worker.confinement.bounded_call import BoundedCall
from lorapool.worker.engine.model import OnProgress
from lorapool.worker.engine_process.supervisor import EngineProcess, Program
from lorapool.worker.grammar.judge import GrammarJudge
from lorapool.worker.host import Host, Served
from lorapool.worker.loop.presence import Presence
from lorapool.worker.native.base_model import BaseModel

FAILED, USAGE = 1, 2
log = structlog.get_logger()
app = typer.Typer(
    name="lorapool-worker",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # its tracebacks show local variables, and so passwords
    help=__doc__.split("\n\n")[0],
)


def _option(name: str, text: str, **more: Any) -> Any:
    variable = "LORAPOOL_" + name.removeprefix("--").replace("-", "_").upper()
    return typer.Option(name, envvar=variable, help=text, show_default=True, **more)


RedisUrl = Annotated[str | None, _option("--redis-url", "redis:// or rediss:// URL of the server")]
Pool = Annotated[str | None, _option("--pool", "pool to serve")]
BaseModelName = Annotated[str, _option("--base-model", "folder, or hub id with @revision")]
Looked = Annotated[str | None, _option("--worker-id", "the worker to look at; any, if not given")]
WorkerId = Annotated[str | None, _option("--worker-id", "name of this worker; made up if not given")]
Device = Annotated[str, _option("--device", "auto, cpu, cuda or cuda:N")]
Dtype = Annotated[str, _option("--dtype", "auto, float32, bfloat16 or float16")]
Slots = Annotated[int, _option("--slots", "adapters resident on the device")]
MaxRank = Annotated[int, _option("--max-rank", "largest rank served")]
HostCacheBytes = Annotated[str, _option("--host-cache-bytes", "host memory for adapters, such as 2GiB")]
KvCacheBytes = Annotated[str | None, _option("--kv-cache-bytes", "memory for keys and values, such as 4GiB")]
GpuMemoryUtilization = Annotated[float, _option("--gpu-memory-utilization", "share of the GPU's memory to use")]
MaxBatch = Annotated[int, _option("--max-batch", "rows of one step")]
ClaimAhead = Annotated[
    int | None, _option("--claim-ahead", "claimed jobs that wait for a row; a quarter of a batch if not given")
]
MaxModelLen = Annotated[int | None, _option("--max-model-len", "context in tokens; the model's own if not given")]
AdapterRoot = Annotated[list[Path] | None, _option("--adapter-root", "folder that adapters may lie in; repeatable")]
AdapterPlaces = Annotated[
    list[str] | None, _option("--adapter-source", "uri that adapters may lie below, such as s3://bucket; repeatable")
]
AdapterCacheFolder = Annotated[Path, _option("--adapter-cache", "folder that remote adapters are fetched into")]
ClaimPolicy = Annotated[str, _option("--claim-policy", "affinity, or arrival: oldest job first, one by one")]
Starvation = Annotated[
    float,
    _option("--starvation", "seconds that a job may be overtaken by, at most, for its adapter not being resident"),
]
StepTimeout = Annotated[
    float, _option("--step-timeout", "seconds after which a step counts as hung, and its engine ends")
]
Lease = Annotated[float, _option("--lease", "seconds a claimed job is ours without renewal")]
Grace = Annotated[float, _option("--grace", "seconds that running jobs get to finish after SIGTERM")]
Beat = Annotated[float, _option("--beat", "seconds between heartbeats")]
LogLevel = Annotated[str, _option("--log-level", "debug, info, warning or error")]
ScheduleEvery = Annotated[float, _option("--schedule-every", "seconds between looks at the timetable", min=0.1)]
FsckEvery = Annotated[float, _option("--fsck-every", "seconds between parts of the check of the queue", min=0.1)]
DigestEvery = Annotated[float, _option("--digest-every", "seconds between digests of the dead letters", min=0.1)]
PruneEvery = Annotated[float, _option("--prune-every", "seconds between removals of what dead workers left", min=0.1)]
CacheBytes = Annotated[str, _option("--adapter-cache-bytes", "what --adapter-cache may hold, such as 20GiB")]
CacheEvery = Annotated[float, _option("--adapter-cache-every", "seconds between looks at it", min=0.1)]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"lorapool {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]


@app.callback()
def _worker(version: Version = False) -> None:
    """A worker owns one device and serves one base model with many adapters."""


@app.command()
def run(
    *,
    base_model: BaseModelName,
    redis_url: RedisUrl = None,
    pool: Pool = None,
    worker_id: WorkerId = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    slots: Slots = 8,
    max_rank: MaxRank = 64,
    host_cache_bytes: HostCacheBytes = "2GiB",
    kv_cache_bytes: KvCacheBytes = None,
    gpu_memory_utilization: GpuMemoryUtilization = 0.9,
    max_batch: MaxBatch = 64,
    claim_ahead: ClaimAhead = None,
    max_model_len: MaxModelLen = None,
    adapter_root: AdapterRoot = None,
    adapter_source: AdapterPlaces = None,
    adapter_cache: AdapterCacheFolder = Path("~/.cache/lorapool/adapters"),
    claim_policy: ClaimPolicy = "affinity",
    starvation: Starvation = 10.0,
    lease: Lease = 15.0,
    step_timeout: StepTimeout = 120.0,
    grace: Grace = 30.0,
    beat: Beat = 2.0,
    log_level: LogLevel = "info",
) -> None:
    """Serve a base model and a pool's adapters until SIGTERM."""
    with _errors_in_one_line():
        settings = _settings(redis_url, pool)
        config = WorkerConfig.parse(
            worker_id=worker_id or _made_up_id(),
            pool=settings.pool,
            base_model=base_model,
            device=device,
            dtype=dtype,
            slots=slots,
            max_rank=max_rank,
            host_cache_bytes=parse_bytes(host_cache_bytes),
            kv_cache_bytes=None if kv_cache_bytes is None else parse_bytes(kv_cache_bytes),
            gpu_memory_utilization=gpu_memory_utilization,
            max_batch=max_batch,
            claim_ahead=claim_ahead,
            max_model_len=max_model_len,
            adapter_roots=tuple(path.expanduser().resolve() for path in adapter_root or ()),
            adapter_places=tuple(check_place(place) for place in adapter_source or ()),
            adapter_cache=adapter_cache.expanduser().resolve(),
            claim_policy=claim_policy,
            starvation_s=starvation,
            lease_s=lease,
            step_timeout_s=step_timeout,
            grace_s=grace,
            beat_s=beat,
        )
        logs.configure(log_level)
        raise typer.Exit(asyncio.run(serve(config, settings, NativeHost(config, log_level))))


@app.command()
def check(redis_url: RedisUrl = None, pool: Pool = None, worker_id: Looked = None) -> None:
    """Exit 0 if the worker (any worker, without --worker-id) beats and is ready, else 1."""
    with _errors_in_one_line():
        settings = _settings(redis_url, pool)
        raise typer.Exit(asyncio.run(_check(settings, worker_id)))


@app.command()
def maintenance(
    *,
    redis_url: RedisUrl = None,
    pool: Pool = None,
    schedule_every: ScheduleEvery = 5.0,
    fsck_every: FsckEvery = 60.0,
    digest_every: DigestEvery = 900.0,
    prune_every: PruneEvery = 60.0,
    adapter_cache: AdapterCacheFolder = Path("~/.cache/lorapool/adapters"),
    adapter_cache_bytes: CacheBytes = "20GiB",
    adapter_cache_every: CacheEvery = 600.0,
    log_level: LogLevel = "info",
) -> None:
    """Do a pool's chores until SIGTERM: scheduled jobs, check and repair, dead letters, dead workers, disk caches.

    Any number of these may run: each chore is done once a tick. Jobs need none of them.
    """
    with _errors_in_one_line():
        from lorapool.worker.maintenance.maintenance import Maintenance, Periods, maintain

        cache = CacheFolder(adapter_cache.expanduser().resolve(), parse_bytes(adapter_cache_bytes))
        periods = Periods(schedule_every, fsck_every, digest_every, prune_every, adapter_cache_every)
        settings = _settings(redis_url, pool)
        logs.configure(log_level)
        raise typer.Exit(asyncio.run(maintain(lambda: Maintenance(settings, periods, cache))))


def main() -> None:
    """The console script."""
    app()


class NativeHost:
    """The real Host: NativeModel in a process of its own."""

    def __init__(self, config: WorkerConfig, log_level: str = "info") -> None:
        self._config = config
        program = Program("lorapool.worker.native.model:NativeModel", config, log_level=log_level)
        self._engine = EngineProcess(program, step_timeout_s=config.step_timeout_s)

    async def identify(self, on_progress: OnProgress) -> PoolConfig:
        """Find the files and compute their digest; fetches from the hub if need be."""
        BaseModel.check_folder(self._config.base_model)  # said at once, before torch is imported
        return PoolConfig.model_validate(await self._engine.identify(on_progress))

    async def load(self, on_progress: OnProgress) -> Served:
        """Load weights and tokenizer, run the self-check, build the engine."""
        handed = await self._engine.load(on_progress)
        from lorapool.worker.text.tokenizer import Tokenizer

        tokenizer, config = Tokenizer.unpacked(handed["tokenizer"]), self._config
        cache = CacheFolder(config.adapter_cache)
        files = AdapterFiles(config.adapter_roots, config.adapter_places, cache, handed["limit_bytes"])
        judge = Judge(files, handed["outline"], **tokenizer.chat_words())
        check = BoundedCall(judge.check, CHECK_S, "judging an adapter")
        return Served(self._engine, tokenizer, check, GrammarJudge(tokenizer.packed))

    async def close(self) -> None:
        await self._engine.close()


def _settings(redis_url: str | None, pool: str | None) -> RedisSettings:
    try:
        return redis_settings(redis_url, pool)
    except ValidationError as error:
        raise InvalidRequest(explain_validation(error)) from None


async def serve(config: WorkerConfig, settings: RedisSettings, host: Host) -> int:
    """Check the pool, load the model, work until told to stop; the exit status."""
    log.info("starting", worker=config.worker_id, pool=config.pool, redis=settings.redacted_url)
    connection = PoolConnection(connect(settings), config.pool)
    partition, members = connection.partition(), Membership(connection)
    operators, counters = OperatorQueue(partition), Counters(partition)
    catalog = Catalog(connection, WorkerRequests(partition, members), lambda _: operators)
    presence = Presence(members, config.worker_id, every_s=config.beat_s)
    try:
        await connection.server.ping()
        await _warn_of_eviction(connection.server)
        await presence.join()
        began_s = time.monotonic()
        served = await _unless_told_to_stop(_load(catalog, presence, host))
        if served is None:
            log.info("stopped while it loaded", worker=config.worker_id)
            return 0
        load_ms = round(1000 * (time.monotonic() - began_s))
        identity = {"version": __version__, "model_load_ms": load_ms, **served.engine.facts.fields()}
        worker = worker_of(
            config,
            WorkerQueue(partition),
            catalog,
            served,
            identity=identity,
            presence=presence,
            members=members,
            counters=counters,
        )
        worker.stop_on_signals()
        gc.freeze()  # what is here stays: no collection needs to look at it
        return 0 if await worker.run() else FAILED
    finally:
        await host.close()
        await connection.aclose()


async def _unless_told_to_stop(loading: Coroutine[Any, Any, Served]) -> Served | None:
    """None where SIGTERM or SIGINT comes first."""
    task, loop, signals = asyncio.create_task(loading), asyncio.get_running_loop(), (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        if not task.cancelled():
            raise
        return None
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


async def _load(catalog: Catalog, presence: Presence, host: Host) -> Served:
    """The pool sees meanwhile that a worker loads, and how far it is."""
    try:
        async with presence.loading() as tell:
            with _progress() as show:

                def on_progress(what: str, share: float | None = None) -> None:
                    tell(what if share is None else f"{what}, {share:.0%}")
                    show(what, share)

                await catalog.create_or_check_config(await host.identify(on_progress))
                return await host.load(on_progress)
    except BaseException:
        with suppress(LorapoolError):
            await presence.leave()
        raise


async def _warn_of_eviction(server: Server) -> None:
    policy = await server.eviction_policy()
    if policy not in {"noeviction", ""}:
        log.warning("redis may evict jobs: set maxmemory-policy noeviction", maxmemory_policy=policy)


async def _check(settings: RedisSettings, worker_id: str | None) -> int:
    connection = PoolConnection(connect(settings), settings.pool)
    try:
        beats = await Membership(connection).all()
    finally:
        await connection.aclose()
    alive = [beat for beat in beats if worker_id in {None, beat["worker"]}]
    for beat in alive:
        Console().print(f"{beat['worker']}: {plain_text(_state(beat))}", highlight=False, markup=False)
    if not alive:
        Console(stderr=True).print(f"no live worker{f' {worker_id}' if worker_id else ''} in pool {settings.pool}")
    return 0 if any(beat.get("state") == "running" for beat in alive) else FAILED


def _state(beat: Mapping[str, str]) -> str:
    """Its state, and what there is to say of it: how far loading is, how old the running step, what ails it."""
    age = f"step begun {beat['step_age_ms']} ms ago" if beat.get("step_age_ms", "0") != "0" else ""
    details = [text for text in (beat.get("progress", ""), age, beat.get("ails", "")) if text]
    return " - ".join((beat.get("state", "?"), *details))


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    """An error of ours is one line on stderr and an exit status, not a traceback."""
    try:
        yield
    except LorapoolError as error:
        Console(stderr=True, soft_wrap=True).print(f"lorapool-worker: {error}", style="red", markup=False)
        raise typer.Exit(USAGE if isinstance(error, InvalidRequest) else FAILED) from None
    except ModuleNotFoundError as error:
        if error.name not in {"torch", "transformers", "safetensors", "arq", "re2"}:
            raise
        reason = f"lorapool-worker: {error.name} is not installed; a worker needs: pip install 'lorapool[worker]'"
        Console(stderr=True, soft_wrap=True).print(reason, style="red", markup=False)
        raise typer.Exit(FAILED) from None


@contextmanager
def _progress() -> Iterator[OnProgress]:
    """A bar on a terminal while something slow goes on, nothing elsewhere; yields how to say what it is."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting", total=None)

        def on_progress(what: str, share: float | None = None) -> None:
            progress.update(task, description=what, total=None if share is None else 1.0, completed=share or 0.0)

        yield on_progress


def _made_up_id() -> str:
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname().partition(".")[0])
    return f"w-{host[:40]}-{secrets.token_hex(3)}"
