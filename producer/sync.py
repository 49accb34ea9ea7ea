"""The same names, blocking, for code without an event loop.

One background thread runs one event loop for a Client; every call goes there and waits. Do not use it inside a
running event loop: use ``lorapool.producer.Client`` there.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from lorapool.producer.client import client as aio
from lorapool.producer.client.adapters import DEFAULT_VERSION
from lorapool.producer.client.adapters import Adapters as AsyncAdapters
from lorapool.producer.client.handle import JobHandle as AsyncJobHandle
from lorapool.producer.client.loop_thread import LoopThread
from lorapool.producer.client.publishing import Imported, Verified
from lorapool.producer.client.schedules import Schedules as AsyncSchedules
from lorapool.producer.client.sender import Item
from lorapool.producer.client.stream import TextDelta
from lorapool.producer.operator.cost import Bill
from lorapool.producer.operator.tariff import Tariff
from lorapool.producer.operator.upkeep import PoolUpkeep as AsyncPoolUpkeep
from lorapool.shared.access.key import Key, KeyUse
from lorapool.shared.access.key_book import KeyBook
from lorapool.shared.catalog.aliases import Canary, Move
from lorapool.shared.catalog.catalog import AdapterRecord, PoolConfig
from lorapool.shared.errors import ClientClosed, ForeignClient, LorapoolError
from lorapool.shared.job import JobState, Result
from lorapool.shared.prompt_format import PromptFormat
from lorapool.shared.queue.protocol import Backlog, DeadLetter, Enqueued, Explanation, Finding, Limits, Retired
from lorapool.shared.timetable.schedule import Schedule

T = TypeVar("T")


class JobHandle:
    """A job of this pool; see ``lorapool.producer.JobHandle``."""

    def __init__(self, thread: LoopThread, handle: AsyncJobHandle) -> None:
        self._thread, self.wrapped = thread, handle
        self.id, self.created = handle.id, handle.created

    def __repr__(self) -> str:
        return f"<JobHandle {self.id}>"

    def result(self, timeout: float | None = None) -> Result:
        return self._thread.run(self.wrapped.result(timeout))

    def record(self) -> Mapping[str, str | bytes]:
        return self._thread.run(self.wrapped.record())

    def state(self) -> JobState:
        return self._thread.run(self.wrapped.state())

    def cancel(self) -> JobState:
        return self._thread.run(self.wrapped.cancel())

    def explain(self) -> Explanation:
        return self._thread.run(self.wrapped.explain())

    def stream(self, timeout: float | None = None) -> Iterator[TextDelta]:
        """``for delta in job.stream(): print(delta.text, end="")``"""
        deltas = self.wrapped.stream(timeout)
        try:
            while (delta := self._thread.run(_next(deltas))) is not None:
                yield delta
        finally:
            with suppress(ClientClosed, ForeignClient):  # it has ended with the client, or was never ours
                self._thread.run(deltas.aclose())


class Adapters:
    """The pool's adapters; see ``lorapool.producer.client.adapters.Adapters``."""

    def __init__(self, thread: LoopThread, adapters: AsyncAdapters) -> None:
        self._thread, self._adapters = thread, adapters

    def register(
        self,
        adapter_id: str,
        uri: str | Path,
        *,
        version: str = DEFAULT_VERSION,
        aliases: Sequence[str] = (),
        metadata: Mapping[str, str] | None = None,
        digest: str | None = None,
        prompt_format: PromptFormat | Mapping[str, str] | str | None = None,
        parents: Sequence[str] = (),
        owner: str = "",
        wait: bool = True,
        timeout: float = 60.0,
    ) -> AdapterRecord:
        work = self._adapters.register(
            adapter_id,
            uri,
            version=version,
            aliases=aliases,
            metadata=metadata,
            digest=digest,
            prompt_format=prompt_format,
            parents=parents,
            owner=owner,
            wait=wait,
            timeout=timeout,
        )
        return self._thread.run(work)

    def publish(self, folder: str | Path, to: str | Path, **options: Any) -> AdapterRecord:
        """As ``lorapool.producer.client.adapters.Adapters.publish``, with the same arguments."""
        return self._thread.run(self._adapters.publish(folder, to, **options))

    def import_manifest(
        self,
        path: str | Path,
        *,
        wait: bool = True,
        timeout: float = 60.0,
        on_total: Callable[[int], None] = lambda _: None,
        on_done: Callable[[Imported], None] = lambda _: None,
    ) -> Sequence[Imported]:
        return self._thread.run(
            self._adapters.import_manifest(path, wait=wait, timeout=timeout, on_total=on_total, on_done=on_done)
        )

    def verify(self, name: str, *, worker: bool = False, timeout: float = 60.0) -> Verified:
        return self._thread.run(self._adapters.verify(name, worker=worker, timeout=timeout))

    def list(self, *, removed: bool = False) -> Sequence[AdapterRecord]:
        return self._thread.run(self._adapters.list(removed=removed))

    def refs(self) -> Sequence[str]:
        return self._thread.run(self._adapters.refs())

    def get(self, name: str) -> AdapterRecord:
        return self._thread.run(self._adapters.get(name))

    def alias(self, name: str, ref: str) -> AdapterRecord:
        return self._thread.run(self._adapters.alias(name, ref))

    def rollback(self, name: str) -> AdapterRecord:
        return self._thread.run(self._adapters.rollback(name))

    def canary(self, name: str, ref: str, percent: int) -> None:
        self._thread.run(self._adapters.canary(name, ref, percent))

    def canaries(self) -> dict[str, Canary]:
        return self._thread.run(self._adapters.canaries())

    def unalias(self, name: str) -> str:
        return self._thread.run(self._adapters.unalias(name))

    def history(self, name: str) -> Sequence[Move]:
        return self._thread.run(self._adapters.history(name))

    def remove(self, ref: str, *, force: bool = False, timeout: float = 60.0) -> Retired:
        return self._thread.run(self._adapters.remove(ref, force=force, timeout=timeout))

    def aliases(self) -> dict[str, str]:
        return self._thread.run(self._adapters.aliases())


class PoolUpkeep:
    """What an operator does to a pool; see ``lorapool.producer.operator.upkeep.PoolUpkeep``."""

    def __init__(self, thread: LoopThread, upkeep: AsyncPoolUpkeep) -> None:
        self._thread, self._upkeep = thread, upkeep

    def pause(self, adapter: str) -> str:
        return self._thread.run(self._upkeep.pause(adapter))

    def resume(self, adapter: str) -> str:
        return self._thread.run(self._upkeep.resume(adapter))

    def limits(self, adapter: str | None, **changes: float | None) -> Limits:
        return self._thread.run(self._upkeep.limits(adapter, **changes))

    def dead(self, adapter: str | None = None, *, n: int | None = None) -> Sequence[DeadLetter]:
        return self._thread.run(self._upkeep.dead(adapter, n=n))

    def redrive(self, job_id: str) -> Enqueued:
        return self._thread.run(self._upkeep.redrive(job_id))

    def purge_dead(self, adapter: str | None = None, *, older_than: float = 0.0) -> int:
        return self._thread.run(self._upkeep.purge_dead(adapter, older_than=older_than))

    def purge_waiting(self, adapter: str) -> int:
        return self._thread.run(self._upkeep.purge_waiting(adapter))

    def fsck(self) -> Sequence[Finding]:
        return self._thread.run(self._upkeep.fsck())


class Schedules:
    """Jobs that recur; see ``lorapool.producer.client.schedules.Schedules``."""

    def __init__(self, thread: LoopThread, schedules: AsyncSchedules) -> None:
        self._thread, self._schedules = thread, schedules

    def add(self, adapter: str | None, prompt: str | None = None, **arguments: Any) -> Schedule:
        return self._thread.run(self._schedules.add(adapter, prompt, **arguments))

    def list(self) -> Sequence[Schedule]:
        return self._thread.run(self._schedules.list())

    def watched(self) -> bool:
        return self._thread.run(self._schedules.watched())

    def remove(self, name: str) -> None:
        self._thread.run(self._schedules.remove(name))


class Keys:
    """API keys; see ``lorapool.shared.access.key_book.KeyBook``."""

    def __init__(self, thread: LoopThread, keys: KeyBook) -> None:
        self._thread, self._keys = thread, keys

    def add(self, name: str, **arguments: Any) -> str:
        return self._thread.run(self._keys.add(name, **arguments))

    def list(self) -> Sequence[KeyUse]:
        return self._thread.run(self._keys.list())

    def get(self, name: str) -> Key:
        return self._thread.run(self._keys.get(name))

    def revoke(self, name: str, *, by: str = "cli") -> None:
        self._thread.run(self._keys.revoke(name, by=by))


class Client:
    """``with Client("redis://localhost:6379", pool="default") as pool: pool.submit("cfo", "…").result()``."""

    def __init__(self, redis_url: str | None = None, *, pool: str | None = None, agent: str = "anonymous") -> None:
        self._client = aio.Client(redis_url, pool=pool, agent=agent)
        self._thread = LoopThread()
        self.adapters = Adapters(self._thread, self._client.adapters)
        self.upkeep = PoolUpkeep(self._thread, self._client.upkeep)
        self.schedules = Schedules(self._thread, self._client.schedules)
        self.keys = Keys(self._thread, self._client.keys)

    def __enter__(self) -> Self:
        try:
            self._thread.run(self._client.__aenter__())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections and the thread back; jobs go on. Harmless to repeat."""
        if self._thread.running:
            try:
                with suppress(ClientClosed):  # by another thread, meanwhile
                    self._thread.run(self._client.close())
            finally:
                self._thread.stop()

    def submit(self, adapter: str | None, prompt: str | None = None, **arguments: Any) -> JobHandle:
        """As ``lorapool.producer.Client.submit``, with the same arguments."""
        return self._wrap(self._thread.run(self._client.submit(adapter, prompt, **arguments)))

    def submit_many(
        self, requests: Iterable[Item], *, wait: bool = False, on_lost: str = "raise"
    ) -> list[JobHandle | LorapoolError]:
        answers = self._thread.run(self._client.submit_many(requests, wait=wait, on_lost=on_lost))
        return [answer if isinstance(answer, LorapoolError) else self._wrap(answer) for answer in answers]

    def gather(
        self, requests: Iterable[Item | JobHandle], *, timeout: float | None = None, on_lost: str = "raise"
    ) -> list[Result | LorapoolError]:
        items = [item.wrapped if isinstance(item, JobHandle) else item for item in requests]
        return self._thread.run(self._client.gather(items, timeout=timeout, on_lost=on_lost))

    def volley(
        self, prompt: str | None = None, adapters: Sequence[str | None] = (), **options: Any
    ) -> list[Result | LorapoolError]:
        """As ``lorapool.producer.Client.volley``, with the same arguments."""
        return self._thread.run(self._client.volley(prompt, adapters, **options))

    def get(self, job_id: str) -> JobHandle:
        return self._wrap(self._client.get(job_id))

    def explain(self, job_id: str) -> Explanation:
        return self._thread.run(self._client.explain(job_id))

    def stats(self, adapter: str | None) -> dict[str, int | float]:
        return self._thread.run(self._client.stats(adapter))

    def all_stats(self) -> dict[str, dict[str, int | float]]:
        return self._thread.run(self._client.all_stats())

    def totals(self) -> dict[str, int | float]:
        return self._thread.run(self._client.totals())

    def agent_stats(self, agent: str) -> dict[str, int | float]:
        return self._thread.run(self._client.agent_stats(agent))

    def cost(self, tariff: Tariff | None = None) -> Bill:
        return self._thread.run(self._client.cost(tariff))

    def workers(self) -> list[dict[str, Any]]:
        return self._thread.run(self._client.workers())

    def config(self) -> PoolConfig | None:
        return self._thread.run(self._client.config())

    def backlog(self) -> Backlog:
        return self._thread.run(self._client.backlog())

    def last_used(self, adapter: str | None) -> int | None:
        return self._thread.run(self._client.last_used(adapter))

    def all_last_used(self) -> dict[str, int]:
        return self._thread.run(self._client.all_last_used())

    def count_refusals(self, reasons: Mapping[str, int], *, report: str) -> None:
        self._thread.run(self._client.count_refusals(reasons, report=report))

    def refusals(self) -> dict[str, int]:
        return self._thread.run(self._client.refusals())

    def _wrap(self, handle: AsyncJobHandle) -> JobHandle:
        return JobHandle(self._thread, handle)


async def _next(deltas: AsyncGenerator[TextDelta, None]) -> TextDelta | None:
    return await anext(deltas, None)
