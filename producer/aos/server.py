"""LoRAxServer: AOS's server as a facade: it owns no model and opens no port, it is attached to a pool of workers.

Start attaches and waits for a worker of the configured base model, stop detaches; the fleet goes on. Where workers are
its own subprocesses, stop drains those. Many facades may share a pool: nothing that counts is kept here.
"""

from __future__ import annotations

import asyncio
import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from lorapool.producer.aos.adapter_info import AdapterInfo
from lorapool.producer.aos.admission import Admission
from lorapool.producer.aos.attachment import Attachment
from lorapool.producer.aos.base_model import served_instead
from lorapool.producer.aos.config import LoRAxConfig
from lorapool.producer.aos.door import Door
from lorapool.producer.aos.errors import IgnoredSetting, NotRunning, error_name
from lorapool.producer.aos.inference import Ask, Inference
from lorapool.producer.aos.local_workers import LocalWorkers
from lorapool.producer.aos.refusals import Refusals
from lorapool.producer.aos.registry import LoRAxAdapterRegistry
from lorapool.producer.aos.reply import about, failure
from lorapool.producer.aos.status import Own, look, status_of, unknown_status
from lorapool.producer.client.client import Client
from lorapool.shared.catalog.catalog import PoolConfig
from lorapool.shared.errors import (
    InvalidRequest,
    JobCancelled,
    JobExpired,
    JobFailed,
    LorapoolError,
    NoWorker,
    PoolMismatch,
    ResultExpired,
    ResultTimeout,
)
from lorapool.shared.server.settings import redis_settings

KEPT_LATENCIES = 1024
_COUNTED_BY_WORKERS = (JobFailed, JobCancelled, JobExpired, ResultExpired, ResultTimeout)


class LoRAxServer:
    """``running`` after ``start`` returned True; what it could not do stands in ``last_error``."""

    def __init__(self, config: LoRAxConfig | None = None) -> None:
        self.config = config or LoRAxConfig()
        self.last_error: Exception | None = None
        self.request_counter = 0  # requests made through this facade
        self._attachment = Attachment(self.config.redis_url, self.config.pool)
        self._registry = LoRAxAdapterRegistry(self.config, self._attachment)
        self._local = LocalWorkers(self.config)
        self._door = Door(self.config)
        self._admission: Admission | None = None
        self._inference: Inference | None = None
        self._latencies_ms: deque[float] = deque(maxlen=KEPT_LATENCIES)
        self._refusals = Refusals()
        self._changing = asyncio.Lock()  # one start or stop at a time
        for message in self.config.ignored():
            warnings.warn(message, IgnoredSetting, stacklevel=2)

    @property
    def registry(self) -> LoRAxAdapterRegistry:
        return self._registry

    @property
    def adapter_registry(self) -> LoRAxAdapterRegistry:
        """The newer AOS's name of it."""
        return self._registry

    @property
    def url(self) -> str | None:
        """Where its gateway speaks OpenAI's API; None without workers of its own."""
        return self._door.url

    @property
    def attached(self) -> bool:
        """Between a start and a stop."""
        return self._inference is not None

    @property
    def running(self) -> bool:
        """Attached, and some worker claims jobs right now: asks the pool."""
        return self.attached and bool(self.get_status()["running"])

    @property
    def metrics(self) -> dict[str, Any]:
        metrics: dict[str, Any] = self.get_status()["metrics"]
        return metrics

    def register(
        self, agent_role: str, adapter_path: str, adapter_id: str | None, version: str, metadata: dict[str, Any] | None
    ) -> AdapterInfo:
        """As ``registry.register_adapter``; without an id it is the role's own."""
        return self._attachment.run(
            lambda client: self._registry.register(client, adapter_id, agent_role, adapter_path, version, metadata)
        )

    # -- start and stop

    async def start(self) -> bool:
        """Attach: True once a worker of the configured base model can serve; repeated, whether one still can.

        With workers of its own it opens a gateway as well, at ``url``. False, with the reason in ``last_error``, when
        Redis is not to be reached, the pool serves another base model, or no worker is there within
        ``start_timeout_s``: nothing is left behind then. True with a ``last_error`` when an adapter that was registered
        before has been refused since, or the gateway has no place to listen.
        """
        async with self._changing:
            return await self._start()

    async def _start(self) -> bool:
        again, self.last_error = self.attached, None
        no_worker = "start one with `lorapool-worker run`, or set spawn_local"
        try:
            await self._attachment.open()
            await self._within_start(self._await_service, f"no worker serves {self.config.base_model!r}: {no_worker}")
            if not again:
                await self._attachment.call(self._attach)
        except (LorapoolError, OSError) as error:
            self.last_error = error
            if not again:
                await self._detach(drain_s=0.0)
            return False
        for then in (self._check_adapters, self._open_door):
            try:
                await then()
            except LorapoolError as error:
                self.last_error = error
        return True

    async def _check_adapters(self) -> None:
        await self._within_start(self._registry.validated, "workers have not validated all adapters registered here")

    async def _open_door(self) -> None:
        await self._attachment.call(self._door.open)

    async def stop(self) -> bool:
        """Detach: no new requests, those under way end (or are cancelled after ``drain_timeout_s``).

        Workers started by this server are drained and ended; all others go on. False, with ``last_error``, when
        something had to be cut off. Harmless to repeat.
        """
        self.last_error = None
        try:
            async with self._changing:
                cut = await self._detach(drain_s=self.config.drain_timeout_s)
        except (LorapoolError, OSError) as error:
            self.last_error = error
            return False
        if cut:
            self.last_error = NotRunning(f"stopped, but cut off: {cut}")
        return not cut

    # -- requests

    async def inference(
        self,
        adapter_id: str,
        prompt: str | None,
        max_new_tokens: int = 256,
        temperature: float = 0.7,
        top_p: float = 0.9,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Ask one adapter and wait for the answer; see ``reply.answer`` for its keys.

        ``kwargs`` are further sampling params, and ``messages``, ``system``, ``agent_id``, ``timeout`` (seconds),
        ``priority``, ``job_id``. Raises NotRunning (a RuntimeError), UnknownAdapterId (a ValueError), InvalidRequest
        (an unknown or impossible parameter), and what ends the job: JobFailed, JobExpired, JobCancelled.
        """
        own = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
        return await self.ask(None, adapter_id, prompt, own | kwargs)

    async def inference_for_agent(self, agent_role: str, prompt: str | None, **kwargs: Any) -> dict[str, Any]:
        """As ``inference``, for what the role means now; or for ``adapter``, a ref, alias or id, this time."""
        return await self.ask(agent_role, None, prompt, kwargs)

    async def batch_inference(self, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Ask all at once: ``adapter_id`` or ``agent_role``, ``prompt``, and ``params`` each.

        They share the workers' batches. Same length and order as ``requests``; where one failed stands a dict of its
        own with ``error``, and the others go on.
        """
        return list(await asyncio.gather(*(self._item(request) for request in requests)))

    async def ask(
        self, role: str | None, adapter_id: str | None, prompt: str | None, arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        """One request, by role or by adapter id; every failure is counted."""
        self.request_counter += 1
        try:
            request = Ask.of(role, adapter_id, prompt, arguments)
            inference = self._running_inference()
            result = await self._attachment.call(lambda _: inference.run(request))
        except Exception as error:
            if not isinstance(error, _COUNTED_BY_WORKERS):
                await self._refused(error)
            raise
        self._latencies_ms.append(result["latency_ms"])
        return result

    # -- numbers

    def get_status(self) -> dict[str, Any]:
        """AOS's keys and more; with ``message``, and None for numbers, while the pool cannot be asked."""
        try:
            return status_of(self._own(), self._attachment.run(look))
        except (LorapoolError, OSError) as error:
            return unknown_status(self._own(), str(error))

    async def status(self) -> dict[str, Any]:
        """``get_status`` without blocking."""
        try:
            return status_of(self._own(), await self._attachment.call(look))
        except (LorapoolError, OSError) as error:
            return unknown_status(self._own(), str(error))

    def get_adapter_stats(self, adapter_id: str) -> dict[str, Any] | None:
        """The counters of one adapter; None if there is none. Raises RedisUnreachable."""
        return self._attachment.run(lambda client: self.stats_of(client, adapter_id=adapter_id))

    async def adapter_stats(self, adapter_id: str) -> dict[str, Any] | None:
        """``get_adapter_stats`` without blocking."""
        return await self._attachment.call(lambda client: self.stats_of(client, adapter_id=adapter_id))

    def get_agent_stats(self, agent_role: str) -> dict[str, Any] | None:
        """The same of what a role means, with the role's own counters in ``role_stats``."""
        return self._attachment.run(lambda client: self.stats_of(client, role=agent_role))

    async def agent_stats(self, agent_role: str) -> dict[str, Any] | None:
        """``get_agent_stats`` without blocking."""
        return await self._attachment.call(lambda client: self.stats_of(client, role=agent_role))

    async def stats_of(
        self, client: Client, *, adapter_id: str | None = None, role: str | None = None
    ) -> dict[str, Any] | None:
        """AOS's keys of an adapter's statistics, then its counters and, for a role, the role's."""
        info = await self._registry.find(client, adapter_id=adapter_id, role=role)
        if info is None:
            return None
        names = ("adapter_id", "agent_role", "version", "loaded", "load_count", "inference_count", "last_used")
        stats = {name: getattr(info, name) for name in (*names, "created_at", "metadata", "status", "agent_roles")}
        stats["adapter_stats"] = await client.stats(info.ref)
        if role is not None:
            stats["role_stats"] = await client.agent_stats(role.casefold())
        return stats

    # -- how

    def _running_inference(self) -> Inference:
        if self._inference is None:
            raise NotRunning("the LoRAx server is not running: await start() first, and see last_error")
        return self._inference

    async def _await_service(self, client: Client) -> None:
        """Check, start workers of our own if asked to, wait for one that serves."""
        self._check_base_model(await client.config())
        self._local.start()
        while not await self._served(client):
            self._local.check()
            await asyncio.sleep(0.05)
        self._check_base_model(await client.config())

    async def _attach(self, client: Client) -> None:
        pool = await client.config()
        assert pool is not None, "a worker serves a pool without a config"
        self._admission = Admission(self.config.max_concurrent_requests)
        self._inference = Inference(client, self._admission, self.config, pool)
        await self._refusals.tell(client)

    async def _within_start(self, work: Callable[[Client], Awaitable[None]], complaint: str) -> None:
        """Raises NoWorker with the complaint when that took too long."""
        try:
            async with asyncio.timeout(self.config.start_timeout_s):
                await self._attachment.call(work)
        except TimeoutError:
            raise NoWorker(f"after {self.config.start_timeout_s:g} s {complaint}") from None

    async def _served(self, client: Client) -> bool:
        """A worker claims jobs; with workers of our own, all of those do."""
        serving = {beat["worker"] for beat in await client.workers() if beat.get("state") == "running"}
        return bool(serving) and self._local.names <= serving

    def _check_base_model(self, pool: PoolConfig | None) -> None:
        config = self.config
        served = served_instead(config.base_model, config.base_model_revision, pool) if pool else None
        if served is not None:
            raise PoolMismatch(
                f"this server is configured for the base model {config.base_model!r}, the pool serves {served!r}: set "
                "base_model (AOS_LORAX_BASE_MODEL) to what the pool serves, or use another pool"
            )

    async def _detach(self, drain_s: float) -> str:
        """Back to the state before ``start``; what had to be cut off, in words."""
        admission, cut = self._admission, []
        try:
            if admission is not None and self._attachment.is_open:
                cancelled = await self._attachment.call(lambda _: self._drained(admission, drain_s))
                cut += [f"{cancelled} requests were cancelled"] if cancelled else []
        finally:
            self._inference = self._admission = None
            killed = await self._local.stop(drain_s + 5.0)
            cut += [f"{killed} local workers were killed"] if killed else []
            await self._attachment.close()
        return ", ".join(cut)

    async def _drained(self, admission: Admission, drain_s: float) -> int:
        """No new requests by either way, from now on; how many were cancelled."""
        closing = asyncio.create_task(self._door.close(drain_s))
        cancelled = await admission.close(drain_s)  # from this very moment on
        await closing
        return cancelled

    async def _item(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One of a batch: its answer or its failure."""
        try:
            role, adapter_id, prompt, params = _parts(request)
        except InvalidRequest as error:
            await self._refused(error)
            return failure(error, about(request))
        try:
            return await self.ask(role, adapter_id, prompt, params)
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on and this one says so
            return failure(error, about(request))

    async def _refused(self, error: Exception) -> None:
        """Count it, here if the pool cannot be reached."""
        self._refusals.add(error_name(error))
        if self._inference is not None:
            try:
                await self._attachment.call(self._refusals.tell)
            except LorapoolError:
                return  # it waits for the next

    def _own(self) -> Own:
        settings = redis_settings(self.config.redis_url, self.config.pool)
        return Own(
            config=self.config,
            address=f"{settings.redacted_url} (pool {settings.pool})",
            attached=self._inference is not None,
            in_flight=self._admission.in_flight if self._admission else 0,
            latencies_ms=tuple(self._latencies_ms),
            refusals=self._refusals.waiting,
        )


def _parts(request: Mapping[str, Any]) -> tuple[str | None, str | None, str | None, dict[str, Any]]:
    """(role, adapter id, prompt, params) of one item of a batch. Raises InvalidRequest."""
    if not isinstance(request, Mapping):
        raise InvalidRequest(f"request = {request!r:.60}: expected a dict")
    unknown = request.keys() - {"adapter_id", "agent_role", "prompt", "params"}
    if unknown:
        raise InvalidRequest(
            f"request has {', '.join(sorted(map(str, unknown)))}: expected adapter_id or agent_role, prompt and params"
        )
    role, adapter_id, params = request.get("agent_role"), request.get("adapter_id"), request.get("params") or {}
    if (role is None) == (adapter_id is None):
        raise InvalidRequest("request: expected exactly one of adapter_id and agent_role")
    if not isinstance(params, Mapping):
        raise InvalidRequest(f"params = {params!r:.60}: expected a dict of sampling params")
    return role, adapter_id, request.get("prompt"), dict(params)
