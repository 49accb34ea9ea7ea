"""Validator: sees to it that newly registered adapters get their verdict, ready or refused with the reason.

Asked through the control stream, and by looking now and then at what is pending, in case the request was lost. One
worker at a time judges a version, marked so in the catalog; the first verdict of any stands. Only content is refused:
what this worker cannot reach is left to others, with the reason, and what ends its judge twice is refused for that.
Reads no adapter: ``check`` does (Judge's, in a worker).
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Literal

import structlog

from lorapool.shared.catalog.catalog import AdapterRecord, Catalog
from lorapool.shared.errors import (
    AdapterUnavailable,
    LorapoolError,
    MalformedEntry,
    UnknownAdapter,
    UnsupportedVersion,
)
from lorapool.shared.server.redis_retry import retry, retry_until_repaired
from lorapool.shared.tasks import cancel_and_wait
from lorapool.worker.adapters.not_here import NotHere
from lorapool.worker.adapters.trained_on_merged import refuse_trained_on_merged
from lorapool.worker.confinement.process import ProcessEnded

LOOK_EVERY_S = 5.0
LOOK_AGAIN_S = 0.5  # while another worker judges
HOLD_S = 30.0  # a judgement is ours for so long without a sign of life
HOLD_MS = round(1000 * HOLD_S)
MAX_DEATHS = 2  # judges that a version may end
NO_REASON = "validation failed, and the reason cannot be recorded; see the worker's log"

Check = Callable[[AdapterRecord], Mapping[str, Any]]
"""Returns facts to record with the verdict. Raises AdapterUnavailable where this worker cannot tell, ProcessEnded where
its judge died of it, and any other LorapoolError with the reason to refuse."""

log = structlog.get_logger()


class Validator:
    """Runs until cancelled. ``judging``: the ref it looks at now, or nothing."""

    def __init__(self, catalog: Catalog, check: Check, worker: str, not_here: NotHere | None = None) -> None:
        self._catalog, self._check, self._worker = catalog, check, worker
        self.not_here = not_here or NotHere()
        self.judging = ""
        self._busy = False
        self._asked = asyncio.Event()

    async def request(self, _request: Mapping[str, str]) -> None:
        """Look at what is pending now."""
        self._asked.set()

    async def verify(self, request: Mapping[str, str], worker: str) -> None:
        """Check a version that is decided already once more, and record the outcome. Its status stays."""
        try:
            record = await retry(lambda: self._catalog.get(request.get("ref", "")), "record to verify")
        except LorapoolError as error:
            log.warning("adapter not verified", request=dict(request), error=str(error))
            return
        try:
            await asyncio.to_thread(self._check, record)
            problem = ""
        except Exception as error:  # noqa: BLE001  whatever is wrong with the files is the answer
            problem = str(error) or type(error).__name__
        await retry(lambda: self._catalog.verified(record.ref, request.get("token", ""), worker, problem), "verified")
        log.info("adapter verified", adapter=record.ref, problem=problem)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._busy = False
            for record in await retry_until_repaired(self._catalog.pending, "pending adapters"):
                try:
                    await self.validate(record)
                except Exception:
                    log.exception("adapter stepped over", adapter=record.ref)
            await self._rest()

    async def validate(self, record: AdapterRecord) -> None:
        """Judge one version, unless another worker does or this one lately could not reach it."""
        if record.ref in self.not_here:
            return
        token = secrets.token_hex(8)
        begin = retry(lambda: self._catalog.begin_judging(record, self._worker, token, HOLD_MS), "begin to judge")
        judging = await begin
        if judging.word != "begun":
            self._busy |= judging.word == "busy"
        elif judging.deaths >= MAX_DEATHS:
            await self._refuse(record, _deadly(judging.names, "vanished"))
        else:
            await self._judge(record, token)

    async def _judge(self, record: AdapterRecord, token: str) -> None:
        self.judging = record.ref
        holding = asyncio.create_task(self._hold(record.ref, token))
        try:
            await self._conclude(record, token, await self._verdict(record))
        except asyncio.CancelledError:
            await self._catalog.end_judging(record.ref, self._worker, token, "left")
            raise
        finally:
            self.judging = ""
            await cancel_and_wait(holding)

    async def _hold(self, ref: str, token: str) -> None:
        while True:
            await asyncio.sleep(HOLD_S / 3)
            await retry(lambda: self._catalog.renew_judging(ref, self._worker, token, HOLD_MS), "hold a judgement")

    async def _verdict(self, record: AdapterRecord) -> Mapping[str, Any] | Exception:
        """Facts, or what was raised instead."""
        try:
            config = await retry(self._catalog.config, "pool's config")
            refuse_trained_on_merged(record, config.base_model if config else "")
            return await asyncio.to_thread(self._check, record)
        except MalformedEntry:
            raise
        except LorapoolError as error:
            return error
        except OSError as error:
            return AdapterUnavailable(f"{type(error).__name__}: {error}")
        except Exception as error:
            log.exception("validation failed unexpectedly", adapter=record.ref)
            return error

    async def _conclude(self, record: AdapterRecord, token: str, outcome: Mapping[str, Any] | Exception) -> None:
        match outcome:
            case AdapterUnavailable():
                await self._leave_to_others(record.ref, token, str(outcome))
            case ProcessEnded():
                end = self._catalog.end_judging
                judging = await retry(lambda: end(record.ref, self._worker, token, "died"), "a judge's death")
                log.warning("judge died", adapter=record.ref, reason=str(outcome), deaths=judging.deaths)
                self._busy = True  # look again soon
                if judging.deaths >= MAX_DEATHS:
                    await self._refuse(record, _deadly(judging.names, str(outcome)))
            case LorapoolError():
                await self._refuse(record, str(outcome))
            case Exception():
                await self._refuse(record, _words(outcome))
            case _:
                self.not_here.reached(record.ref)
                await self._decide(record, "ready", "", outcome)

    async def _leave_to_others(self, ref: str, token: str, reason: str) -> None:
        self.not_here.note(ref, reason)
        log.warning("adapter not here", adapter=ref, reason=reason)
        end = self._catalog.end_judging
        await retry(lambda: end(ref, self._worker, token, "unreached", reason), "not here")
        await retry(lambda: self._catalog.ask_to_validate(ref, but=self._worker), "ask another to validate")

    async def _refuse(self, record: AdapterRecord, reason: str) -> None:
        await self._decide(record, "refused", reason, {})

    async def _decide(
        self, record: AdapterRecord, verdict: Literal["ready", "refused"], reason: str, facts: Mapping[str, Any]
    ) -> None:
        try:
            await retry(lambda: self._catalog.decide(record.ref, verdict, reason, facts), "verdict")
        except (MalformedEntry, UnknownAdapter, UnsupportedVersion) as error:
            log.info("adapter gone before its verdict", adapter=record.ref, error=str(error))
            return
        except Exception:  # what a stranger wrote cannot be recorded: say only that
            log.exception("verdict not recorded", adapter=record.ref, verdict=verdict)
            await retry(lambda: self._catalog.decide(record.ref, "refused", NO_REASON), "verdict")
            return
        log.info("adapter validated", adapter=record.ref, verdict=verdict, reason=reason)

    async def _rest(self) -> None:
        """Not all workers look in the same moment."""
        try:
            pause_s = LOOK_AGAIN_S if self._busy else LOOK_EVERY_S
            async with asyncio.timeout(pause_s * random.uniform(0.8, 1.2)):  # noqa: S311  jitter, not a secret
                await self._asked.wait()
        except TimeoutError:
            return
        finally:
            self._asked.clear()


def _deadly(workers: str, how: str) -> str:
    return (
        f"it ended its judge {len(workers.split())} times, on {', '.join(workers.split())}; the last one {how}: "
        f"it is taken for harmful; register it again to have it judged anew"
    )


def _words(error: Exception) -> str:
    try:
        return f"validation failed: {type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  even its words are a stranger's
        return NO_REASON
