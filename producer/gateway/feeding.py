"""Feeding: a gateway's duty beside its requests: to feed batches, as long as it serves.

A location that cannot be opened is tried again; requests go on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from lorapool.producer.batches.batch_run import Pace
from lorapool.producer.batches.feeder import Feeder
from lorapool.producer.client.client import Client
from lorapool.producer.gateway.batch_door import BatchDoor
from lorapool.producer.gateway.files import OpenFiles
from lorapool.shared.errors import FilesUnavailable, InvalidRequest
from lorapool.shared.tasks import cancel_and_wait

TRIED_AGAIN_S = 10.0
log = structlog.get_logger("lorapool")


class Feeding:
    """One a gateway."""

    def __init__(self, client: Client, files: OpenFiles, door: BatchDoor, pace: Pace) -> None:
        self._client, self._files, self._door, self._pace = client, files, door, pace
        self._feeder: Feeder | None = None

    def stir(self) -> None:
        """A batch was made here: look at once."""
        if self._feeder is not None:
            self._feeder.stir()

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[None]:
        """While this is open; what it holds is then given back."""
        task = asyncio.create_task(self._run(), name="lorapool-feeding")
        try:
            yield
        finally:
            await cancel_and_wait(task)

    async def _run(self) -> None:
        while self._feeder is None:
            try:
                self._feeder = Feeder(self._client, await self._files.get(), self._door, pace=self._pace)
            except (FilesUnavailable, InvalidRequest) as error:
                log.warning("no_batches_here", error=str(error))
                await asyncio.sleep(TRIED_AGAIN_S)
        await self._feeder.run()
