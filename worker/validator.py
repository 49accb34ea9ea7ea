"""Validator: gives newly registered adapters their verdict, ready or refused with the reason.

Asked through the control stream, and by looking now and then at what is pending, in case the request was lost.
The check itself reads the whole checkpoint in a thread; the first verdict of any worker stands.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any, Literal

import structlog

from lorapool.shared.catalog import AdapterRecord, Catalog
from lorapool.shared.errors import LorapoolError, MalformedEntry, UnknownAdapter, UnsupportedVersion
from lorapool.worker.lineage import check_lineage
from lorapool.worker.persistence import insist, persist

LOOK_EVERY_S = 5.0
UNTELLABLE = "validation failed, and the reason cannot be recorded; see the worker's log"

Check = Callable[[AdapterRecord], Mapping[str, Any]]
"""Returns facts to record with the verdict; raises LorapoolError with the reason to refuse."""

log = structlog.get_logger()


class Validator:
    """Runs until cancelled."""

    def __init__(self, catalog: Catalog, check: Check) -> None:
        self._catalog, self._check = catalog, check
        self._asked = asyncio.Event()

    async def request(self, _request: Mapping[str, str]) -> None:
        """Look at what is pending now."""
        self._asked.set()

    async def verify(self, request: Mapping[str, str], worker: str) -> None:
        """Check a version that is decided already once more, and say what was found. Its status stays."""
        try:
            record = await persist(lambda: self._catalog.get(request.get("ref", "")), "record to verify")
        except LorapoolError as error:
            log.warning("adapter not verified", request=dict(request), error=str(error))
            return
        try:
            await asyncio.to_thread(self._check, record)
            problem = ""
        except Exception as error:  # noqa: BLE001  whatever is wrong with the files is the answer
            problem = str(error) or type(error).__name__
        await persist(lambda: self._catalog.verified(record.ref, request.get("token", ""), worker, problem), "verified")
        log.info("adapter verified", adapter=record.ref, problem=problem)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            for record in await insist(self._catalog.pending, "pending adapters"):
                try:
                    await self.validate(record)
                except Exception:
                    log.exception("adapter stepped over", adapter=record.ref)
            await self._rest()

    async def validate(self, record: AdapterRecord) -> None:
        """Check one version and record the verdict."""
        try:
            config = await persist(self._catalog.config, "pool's config")
            check_lineage(record, config.base_model if config else "")
            facts = await asyncio.to_thread(self._check, record)
        except LorapoolError as error:
            await self._refuse(record, str(error))
        except Exception as error:  # a hostile checkpoint must not take the worker down
            log.exception("validation failed unexpectedly", adapter=record.ref)
            await self._refuse(record, _words(error))
        else:
            await self._decide(record, "ready", "", facts)

    async def _refuse(self, record: AdapterRecord, reason: str) -> None:
        await self._decide(record, "refused", reason, {})

    async def _decide(
        self, record: AdapterRecord, verdict: Literal["ready", "refused"], reason: str, facts: Mapping[str, Any]
    ) -> None:
        try:
            await persist(lambda: self._catalog.decide(record.ref, verdict, reason, facts), "verdict")
        except (MalformedEntry, UnknownAdapter, UnsupportedVersion) as error:
            log.info("adapter gone before its verdict", adapter=record.ref, error=str(error))
            return
        except Exception:  # what a stranger wrote cannot be recorded: say only that
            log.exception("verdict not recorded", adapter=record.ref, verdict=verdict)
            await persist(lambda: self._catalog.decide(record.ref, "refused", UNTELLABLE), "verdict")
            return
        log.info("adapter validated", adapter=record.ref, verdict=verdict, reason=reason)

    async def _rest(self) -> None:
        """Not all workers look in the same moment."""
        try:
            async with asyncio.timeout(LOOK_EVERY_S * random.uniform(0.8, 1.2)):  # noqa: S311  jitter, not a secret
                await self._asked.wait()
        except TimeoutError:
            return
        finally:
            self._asked.clear()


def _words(error: Exception) -> str:
    try:
        return f"validation failed: {type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  even its words are a stranger's
        return UNTELLABLE
