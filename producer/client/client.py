"""Client: what an agent holds. Submits jobs to a pool, one call or many, and hands out their handles.

Builds no Redis command and none of its own parts, and keeps no job: whoever has the id can ask for the answer.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from lorapool.producer.client.compose import compose
from lorapool.producer.client.handle import JobHandle, outcome_of
from lorapool.producer.client.request import Request, Seconds
from lorapool.producer.client.sender import Item
from lorapool.producer.client.slices import Slices
from lorapool.producer.operator.cost import Bill
from lorapool.producer.operator.meter import Meter
from lorapool.producer.operator.tariff import Tariff
from lorapool.shared.catalog.catalog import PoolConfig
from lorapool.shared.errors import (
    InvalidRequest,
    LorapoolError,
    MalformedEntry,
    RedisAuthFailed,
    RedisUnreachable,
)
from lorapool.shared.job import BASE_REF, JobState, Result, check_name
from lorapool.shared.malformed import number
from lorapool.shared.queue.protocol import Backlog, Explanation
from lorapool.shared.redaction import redact
from lorapool.shared.response_format import ResponseFormat
from lorapool.shared.server.keys import split_id
from lorapool.shared.tools import Tool, ToolChoice


class Client:
    """A pool, from an agent's side. Use as ``async with Client("redis://localhost:6379", pool="default") as pool``.

    Without arguments the environment speaks: LORAPOOL_REDIS_URL, LORAPOOL_POOL. ``agent`` is the default name that
    jobs are counted under. Entering it checks that the server answers: RedisUnreachable, RedisAuthFailed.
    """

    def __init__(self, redis_url: str | None = None, *, pool: str | None = None, agent: str = "anonymous") -> None:
        self._agent = check_name("agent", agent)
        self._name = f"client-{secrets.token_hex(8)}"
        self._parts = parts = compose(redis_url, pool, agent=self._agent, client=self._name)
        self._home, self._queue, self._operators = parts.home, parts.queue, parts.operators
        self._members, self._counters, self._catalog = parts.members, parts.counters, parts.catalog
        self._inbox, self._sender = parts.inbox, parts.sender
        self.adapters, self.upkeep, self.schedules = parts.adapters, parts.upkeep, parts.schedules
        self.history, self.onlooker = parts.history, parts.onlooker
        self.responses = parts.responses
        self.files, self.batches = parts.files, parts.batches
        self.keys, self.audit, self.sessions = parts.keys, parts.audit, parts.sessions

    async def __aenter__(self) -> Self:
        try:
            await self._parts.connection.server.ping()
            await self._catalog.layout.check()
        except RedisUnreachable as error:
            await self.close()
            raise type(error)(_remedy(error, self._parts.settings.redacted_url), code=error.code) from None
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the connections back; jobs go on. Calls under way, and all later ones, raise ClientClosed.

        Harmless to repeat, and in a forked child, which leaves its parent's connections alone. Raises ForeignClient in
        another event loop.
        """
        if self._home.here:
            self._home.check_loop()
        self._home.leave()
        if not self._home.here or self._home.gone:
            return
        await self._parts.outbox.close()
        await self._inbox.close()
        await self._parts.connection.aclose()

    # -- jobs

    async def submit(  # noqa: PLR0913 - all that can be said of a job, by name
        self,
        adapter: str | None,
        prompt: str | None = None,
        *,
        messages: Sequence[Mapping[str, Any]] | None = None,
        prompt_ids: Sequence[int] | None = None,
        response_format: ResponseFormat | Mapping[str, Any] | None = None,
        tools: Sequence[Tool | Mapping[str, Any]] = (),
        tool_choice: ToolChoice | Mapping[str, Any] | str = "auto",
        parallel_tool_calls: bool = True,
        agent: str | None = None,
        job_id: str | None = None,
        priority: str = "normal",
        delay: Seconds | None = None,
        deadline: Seconds | None = None,
        stream: bool = False,
        wait: bool = False,
        on_lost: str = "raise",
        key: str | None = None,
        **params: Any,
    ) -> JobHandle:
        """Put one job on its adapter's stream and return its handle; one round trip.

        ``adapter`` is a ref, alias or id; None is the base model. Give ``prompt`` (raw text), ``messages`` (for the
        chat template) or ``prompt_ids`` (token ids, taken as they are). ``response_format``, ``tools`` and
        ``tool_choice`` are as in OpenAI's API; what tools an answer calls is its ``tool_calls``. ``params`` are the
        fields of SamplingParams by name. ``delay`` and ``deadline`` are seconds after submission. The same ``job_id``
        with the same request returns the existing job. ``wait=True`` waits for room instead of raising QueueFull.
        ``on_lost="resubmit"`` keeps the request: while the job is awaited or its stream read, and the server turns out
        to have lost it, it is submitted again by the same id, up to three times, instead of raising JobLost. ``key`` is
        the name of the API key whose quota it is charged to; where that is used up, nothing waits.

        Raises InvalidRequest, UnknownAdapter, AdapterNotReady, AdapterRefused, AdapterClosed, JobConflict, QueueFull,
        QuotaExceeded, UnknownKey, RedisFull, RedisUnreachable, ClientClosed. Each says by ``fate`` whether the job was
        surely not queued or may have been, and the same ``job_id`` again, which it has too, settles it. Cancelled, the
        call cannot say: give a ``job_id`` of your own where that matters.
        """
        request = Request(
            adapter,
            prompt,
            messages,
            agent,
            job_id,
            priority,
            delay,
            deadline,
            stream,
            on_lost,
            prompt_ids=prompt_ids,
            response_format=response_format,
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=parallel_tool_calls,
            key=key,
            params=params,
        )
        return await self._sender.submit(request, wait=wait)

    async def send(self, request: Request, *, wait: bool = False) -> JobHandle:
        """``submit`` of a Request."""
        return await self._sender.submit(request, wait=wait)

    async def submit_many(
        self, requests: Iterable[Item], *, wait: bool = False, on_lost: str = "raise"
    ) -> list[JobHandle | LorapoolError]:
        """As ``submit`` for each, in pipelined calls; same length and order, an error stands in its item's place.

        What is accepted stays accepted, whatever becomes of the rest. The event loop goes on meanwhile, however many.
        """
        return await self._sender.submit_many(requests, float("inf") if wait else 0.0, on_lost)

    async def gather(
        self, requests: Iterable[Item | JobHandle], *, timeout: float | None = None, on_lost: str = "raise"
    ) -> list[Result | LorapoolError]:
        """Submit all, wait for all: a Result or an error for each, in the same order.

        Items are Requests, dicts of ``submit`` arguments, pairs (adapter, prompt), or handles of jobs submitted
        before. Waits for room where an adapter or agent is at its limit. After ``timeout`` seconds what has not ended
        is a ResultTimeout (it goes on), and what found no room a QueueFull. ``on_lost`` is as for ``submit``.
        """
        items = [self._own(item) if isinstance(item, JobHandle) else item for item in requests]
        give_up_at = float("inf") if timeout is None else time.monotonic() + timeout
        fresh = [item for item in items if not isinstance(item, JobHandle)]
        submitted = iter(await self._sender.submit_many(fresh, give_up_at, on_lost))
        handles = [item if isinstance(item, JobHandle) else next(submitted) for item in items]
        left = None if timeout is None else max(0.0, give_up_at - time.monotonic())
        accepted = [handle for handle in handles if isinstance(handle, JobHandle)]
        records = iter(await self._inbox.wait_all([handle.ticket for handle in accepted], left))
        answers: list[Result | LorapoolError] = []
        slices = Slices()
        for handle in handles:
            answers.append(outcome_of(handle, next(records), left) if isinstance(handle, JobHandle) else handle)
            await slices.between()
        return answers

    async def volley(
        self,
        prompt: str | None = None,
        adapters: Sequence[str | None] = (),
        *,
        messages: Sequence[Mapping[str, str]] | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> list[Result | LorapoolError]:
        """One prompt (or chat) to many adapters in one call: an answer or an error for each, in their order.

        ``options`` are those of ``submit``, the same for all. None among ``adapters`` is the base model. Raises
        InvalidRequest for what is wrong with all of them.
        """
        if isinstance(adapters, str) or not adapters:
            raise InvalidRequest(f"adapters = {adapters!r:.60}: expected a list of refs, aliases or ids, at least one")
        if own := options.keys() & {"job_id", "adapter", "stream", "wait"}:
            raise InvalidRequest(f"{', '.join(sorted(own))}: has no place in a volley, which is many jobs; use gather")
        values = {"prompt": prompt, "messages": messages, **options}
        Request.of({"adapter": None, **values}).job(ref=BASE_REF, agent=self._agent, client=self._name)
        return await self.gather([{"adapter": adapter, **values} for adapter in adapters], timeout=timeout)

    def get(self, job_id: str) -> JobHandle:
        """The handle of a job that any process submitted, by full or bare id; asks the server nothing yet."""
        _, bare = split_id(job_id)
        full = self._queue.keys.full_id(check_name("job id", bare))
        return JobHandle(self._queue, self._inbox, self._inbox.ticket(full, own=False), streamed=None, created=False)

    async def states(self, job_ids: Sequence[str]) -> list[JobState | MalformedEntry | None]:
        """Where many jobs are, None for one without a record."""
        return await self._queue.states(job_ids)

    async def shed(self, job_ids: Sequence[str], keep_s: float) -> None:
        """Keep the records of those that have ended for ``keep_s`` more only; dead letters stay."""
        await self._queue.shed(job_ids, keep_s)

    async def window(self, adapter: str | None, agent: str, key: str | None = None) -> tuple[int, int]:
        """How many undelivered jobs the agent has on the adapter, and how many it may have, by that key. Raises as
        ``submit``."""
        return await self._queue.window(await self.adapters.resolve(adapter), check_name("agent", agent), key)

    def _own(self, handle: JobHandle) -> JobHandle:
        """One that this client's inbox can wait for: of another client's job, whose notices come there, it polls."""
        return handle if handle.waits_in(self._inbox) else self.get(handle.id)

    async def explain(self, job_id: str) -> Explanation:
        """Why that job is where it is."""
        return await self.get(job_id).explain()

    # -- numbers

    async def stats(self, adapter: str | None) -> dict[str, int | float]:
        """The counters of one adapter since its first job (None: the base model); sums, docs/operations.md has each."""
        return await self._counters.of_adapter(await self.adapters.ref(adapter))

    async def all_stats(self) -> dict[str, dict[str, int | float]]:
        """The counters of every adapter and of the base model that have any, by ref."""
        refs = [BASE_REF, *await self.adapters.refs()]
        counters = zip(refs, await self._counters.of_adapters(refs), strict=True)
        return {ref: counted for ref, counted in counters if any(counted.values())}

    async def totals(self) -> dict[str, int | float]:
        """The sums of ``all_stats`` over all adapters and the base model, in a few calls however many there are."""
        return await self._counters.sum_of([BASE_REF, *await self.adapters.refs()])

    async def stats_of(self, refs: Sequence[str]) -> list[dict[str, int | float]]:
        """The counters of each of these refs: for a page of them."""
        return await self._counters.of_adapters(refs)

    async def agent_stats(self, agent: str) -> dict[str, int | float]:
        """The same counters, of one agent over all adapters."""
        return await self._counters.of_agent(check_name("agent", agent))

    async def cost(self, tariff: Tariff | None = None) -> Bill:
        """What GPU time cost so far, by adapter and agent, from what was counted; see ``Bill``."""
        beats = await self._members.all()
        load_ms = max((number(beat.get("model_load_ms")) for beat in beats), default=0.0)
        adapters, agents = await self._counters.by_adapter(), await self._counters.by_agent()
        return Bill(Meter(adapters, agents, await self._members.usage(), load_ms), tariff or Tariff())

    async def workers(self) -> list[dict[str, Any]]:
        """Live workers: id, device, rows, tok/s, resident adapters, heartbeat age in ms."""
        return await self._members.all()

    @property
    def pool(self) -> str:
        """Its name."""
        return self._parts.connection.pool

    async def worker_names(self) -> list[str]:
        """Their names alone, sorted: of a thousand in one small reply."""
        return await self._members.names()

    async def workers_of(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """As ``workers``, of those names that live: for a page of them."""
        return await self._members.some([name.encode() for name in names])

    async def config(self) -> PoolConfig | None:
        """The pool's base model, dtype and layout; None before its first worker."""
        return await self._catalog.config()

    async def backlog(self) -> Backlog:
        """What waits and what runs now, by ref, and the longest wait."""
        return await self._operators.backlog()

    async def last_used(self, adapter: str | None) -> int | None:
        """When a worker last claimed a job of that adapter: ms since 1970 by the server's clock, None for never."""
        [claimed_ms] = await self._counters.claimed_ms([await self.adapters.ref(adapter)])
        return claimed_ms

    async def all_last_used(self) -> dict[str, int]:
        """``last_used`` of every adapter and of the base model that ever was, by ref."""
        refs = [BASE_REF, *await self.adapters.refs()]
        claimed = zip(refs, await self._counters.claimed_ms(refs), strict=True)
        return {ref: claimed_ms for ref, claimed_ms in claimed if claimed_ms is not None}

    async def count_refusals(self, reasons: Mapping[str, int], *, report: str) -> None:
        """Have the pool count requests refused before they became jobs; the same ``report`` counts once."""
        await self._counters.add_refusals(self._name, report, reasons)

    async def refusals(self) -> dict[str, int]:
        """Those so counted, by reason, of all clients."""
        return await self._counters.refusals()


def _remedy(error: RedisUnreachable, url: str) -> str:
    reason = redact(str(error.__cause__ or error)).rstrip(".")
    if isinstance(error, RedisAuthFailed):
        return f"Redis at {url} refused user or password ({reason}): give them as redis://user:password@host:port"
    if error.code:  # it is there
        return str(error)
    return f"Redis at {url} does not answer ({reason}): start it there, or set LORAPOOL_REDIS_URL to where it is"
