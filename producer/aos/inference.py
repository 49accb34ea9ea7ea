"""Inference: one request of the AOS names becomes one job of the pool, and its result.

The adapter is looked up once, at submission: what moves a role afterwards does not touch a request under way. Raises;
what becomes of errors is its callers' affair.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from lorapool.producer.aos.admission import Admission
from lorapool.producer.aos.config import LoRAxConfig
from lorapool.producer.aos.errors import NoRoom, UnknownAdapterId
from lorapool.producer.aos.reply import answer
from lorapool.producer.client.client import Client
from lorapool.producer.client.handle import JobHandle
from lorapool.shared.catalog.aliases import alias_of
from lorapool.shared.catalog.catalog import PoolConfig
from lorapool.shared.errors import AdapterNotReady, InvalidRequest, LorapoolError, ResultTimeout, UnknownAdapter
from lorapool.shared.job import BASE_REF, Result, check_name

MAX_NEW_TOKENS, TEMPERATURE, TOP_P = 256, 0.7, 0.9
VALIDATION_SHARE = 0.9  # of a request's time, for its adapter to be validated
LOOK_AGAIN_S = 0.1  # at an adapter that is not ready
LATE_S = 5.0  # beyond the deadline, until its end is heard of
_OPTIONS = frozenset({"messages", "system", "adapter", "purpose", "agent_id", "timeout", "priority", "job_id"})


@dataclass(frozen=True)
class Ask:
    """One request: for a role, a role in one of its purposes, or an adapter id. ``adapter`` overrides what the role
    means, for this request alone."""

    role: str | None
    adapter_id: str | None
    prompt: str | None
    messages: Sequence[Mapping[str, str]] | None = None
    system: str | None = None
    adapter: str | None = None
    purpose: str | None = None
    agent_id: str | None = None
    timeout: float | None = None
    priority: str = "normal"
    job_id: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, role: str | None, adapter_id: str | None, prompt: str | None, arguments: Mapping[str, Any]) -> Ask:
        """``arguments`` are sampling params by name and the options above."""
        options = {name: value for name, value in arguments.items() if name in _OPTIONS}
        own = {name: value for name, value in arguments.items() if name not in _OPTIONS}
        defaults = {"max_new_tokens": MAX_NEW_TOKENS, "temperature": TEMPERATURE, "top_p": TOP_P}
        return cls(role, adapter_id, prompt, **options, params=defaults | own)


class Inference:
    """Requests of one attached facade."""

    def __init__(self, client: Client, admission: Admission, config: LoRAxConfig, pool: PoolConfig) -> None:
        self._client, self._admission, self._config, self._pool = client, admission, config, pool

    async def run(self, ask: Ask) -> dict[str, Any]:
        """The answer. Raises what submitting and the job's end raise: JobExpired when its time was over, NoRoom when it
        was before it could be queued, ResultTimeout when not even the end of a queued one was heard of."""
        began, handle = time.monotonic(), None
        timeout_s = _seconds(self._config.request_timeout_s if ask.timeout is None else ask.timeout)
        try:
            async with asyncio.timeout(timeout_s) as limit, self._admission.place():
                ref, handle = await self._accepted(ask, began + timeout_s)
                left_s = _left_s(began + timeout_s)
                limit.reschedule(asyncio.get_running_loop().time() + left_s + LATE_S)  # the pool ends it in time
                result = await self._result(handle)
        except TimeoutError:
            if handle is None:
                raise NoRoom(f"no room for the request within {timeout_s:g} s, the time it was given") from None
            raise ResultTimeout(f"nothing heard of job {handle.id} within {timeout_s:g} s, the time given") from None
        return answer(
            result,
            prompt=ask.prompt,
            role=ask.role,
            base_model=self._pool.base_model,
            latency_ms=(time.monotonic() - began) * 1000,
            used_base=ref == BASE_REF,
        )

    async def _accepted(self, ask: Ask, until: float) -> tuple[str, JobHandle]:
        """Look up and submit; a version that no worker has validated yet gets most of the request's time for that."""
        give_up_at = until - (1 - VALIDATION_SHARE) * _left_s(until)
        while True:
            try:
                ref = await self._ref(ask)
                return ref, await self._submit(ask, ref, _left_s(until))
            except AdapterNotReady:
                if (pause_s := min(LOOK_AGAIN_S, give_up_at - time.monotonic())) <= 0:
                    raise
            await asyncio.sleep(pause_s)

    async def _ref(self, ask: Ask) -> str:
        if ask.adapter is not None:
            return await self._of_name(ask.adapter)
        if ask.adapter_id is not None:
            return await self._of_id(ask.adapter_id)
        if not isinstance(ask.role, str) or not ask.role:
            raise InvalidRequest(f"agent_role = {ask.role!r}: expected the name of a role")
        try:
            return await self._client.adapters.resolve(_alias(ask))
        except UnknownAdapter as error:
            if self._config.unknown_role == "base":
                return BASE_REF
            what = f" for {ask.purpose!r}" if ask.purpose else ""
            raise UnknownAdapterId(f"no adapter registered for agent {ask.role!r}{what}: {error}") from None

    async def _of_name(self, name: str) -> str:
        """One adapter: a ref, alias or id. A list is refused: it would need a composed adapter."""
        if not isinstance(name, str):
            raise InvalidRequest(f"adapter = {name!r}: expected one name; compose several into an adapter of its own")
        try:
            return await self._client.adapters.resolve(name)
        except UnknownAdapter as error:
            raise UnknownAdapterId(str(error)) from None

    async def _of_id(self, adapter_id: str) -> str:
        """An id means that adapter, also where a role of the same name means another."""
        ref = await self._of_name(adapter_id)
        if ref.partition("@")[0] == adapter_id.partition("@")[0]:
            return ref
        versions = [record for record in await self._client.adapters.list() if record.id == adapter_id]
        ready = [record for record in versions if record.status == "ready"]
        if not ready:
            raise UnknownAdapterId(f"no adapter {adapter_id!r}: that is a role, which means {ref}")
        return max(ready, key=lambda record: record.registered_ms).ref

    async def _submit(self, ask: Ask, ref: str, left_s: float) -> JobHandle:
        agent = ask.agent_id or (ask.role.casefold() if ask.role else "anonymous")
        return await self._client.submit(
            ref,
            **self._input(ask),
            agent=check_name("agent", agent),
            job_id=ask.job_id,
            priority=ask.priority,
            deadline=left_s,
            wait=True,
            **ask.params,
        )

    def _input(self, ask: Ask) -> dict[str, Any]:
        if ask.messages is not None:
            return {"prompt": ask.prompt, "messages": ask.messages}  # both are refused by name
        if self._config.prompt_as == "text" and ask.system is None:
            return {"prompt": ask.prompt}
        if not isinstance(ask.prompt, str):
            raise InvalidRequest(f"prompt = {ask.prompt!r:.60}: expected text")
        system = [] if ask.system is None else [{"role": "system", "content": ask.system}]
        return {"messages": [*system, {"role": "user", "content": ask.prompt}]}

    async def _result(self, handle: JobHandle) -> Result:
        """A caller that no longer wants the answer frees its row."""
        async with self._admission.holding(handle):
            try:
                return await handle.result()
            except asyncio.CancelledError:
                with suppress(LorapoolError):
                    await handle.cancel()
                raise


def _left_s(until: float) -> float:
    return max(0.001, until - time.monotonic())


def _alias(ask: Ask) -> str:
    """A role means its alias, or an exact ref or an id; in a purpose it is an alias of its own."""
    assert ask.role is not None
    return ask.role if ask.purpose is None else alias_of(ask.role, ask.purpose)


def _seconds(timeout: float) -> float:
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= 366 * 86_400:
        raise InvalidRequest(f"timeout = {timeout!r}: expected seconds, above 0 and at most 366 days")
    return timeout
