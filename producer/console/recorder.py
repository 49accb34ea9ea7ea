"""Recorder: has the pool's history written, a minute at a time, while a console is open anywhere.

Any number of replicas may run one: who comes first in a minute writes it, and the others see that it is there. A server
that is away is left alone until it is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from lorapool.producer.client.client import Client
from lorapool.producer.console.pulse import noted
from lorapool.shared.errors import LorapoolError
from lorapool.shared.tasks import cancel_and_wait

EVERY_S = 5.0  # between looks at whether a minute has begun
SAMPLE = 256  # running jobs that are asked how long they had waited


async def record_minute(client: Client) -> bool:
    """Write this minute down if nobody has; whether it was written now."""
    if not await client.history.due():
        return False
    onlooker = client.onlooker
    totals, glance, sample = await client.totals(), await onlooker.glance(), await onlooker.running(SAMPLE)
    return await client.history.note(noted(totals, glance, sample, len(await client.worker_names())))


async def _recording(client: Client) -> None:
    while True:
        try:
            await record_minute(client)
        except LorapoolError as error:
            structlog.get_logger("lorapool").warning("history_not_recorded", error=str(error))
        await asyncio.sleep(EVERY_S)


@asynccontextmanager
async def recording(client: Client) -> AsyncIterator[None]:
    """While this is open."""
    task = asyncio.create_task(_recording(client))
    try:
        yield
    finally:
        await cancel_and_wait(task)
