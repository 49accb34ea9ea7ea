"""Door: the HTTP gateway that a facade opens beside workers of its own, at its configured host and port.

It serves the pool over OpenAI's API on the facade's own thread and connection. What is not installed is told and keeps
nobody from starting: agents reach the pool through Redis as well.
"""

from __future__ import annotations

import asyncio
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lorapool.producer.aos.config import LoRAxConfig
from lorapool.producer.aos.errors import IgnoredSetting
from lorapool.producer.client.client import Client
from lorapool.shared.errors import InvalidRequest, LorapoolError
from lorapool.shared.tasks import cancel_and_wait

if TYPE_CHECKING:
    from lorapool.producer.gateway.settings import GatewaySettings

HERE = "127.0.0.1"


class Door:
    """``url`` once it is open, else None. All methods run on the loop of the client that they are given."""

    def __init__(self, config: LoRAxConfig) -> None:
        self._config = config
        self._serving: asyncio.Task[None] | None = None
        self.url: str | None = None

    async def open(self, client: Client) -> None:
        """Listen, if the facade has workers of its own and is not listening yet. Raises LorapoolError if it cannot.

        Where strangers could reach it and the pool has no keys, it listens for this machine alone.
        """
        if self._serving is not None or not self._config.spawn_local:
            return
        try:
            from lorapool.producer.gateway.settings import GatewaySettings
        except ImportError:
            missing = f"port = {self._config.port} has no effect: pip install 'lorapool[gateway]'"
            warnings.warn(missing, IgnoredSetting, stacklevel=2)
            return
        settings = GatewaySettings(host=self._config.host, port=self._config.port)
        try:
            await self._listen(client, settings)
        except InvalidRequest:
            await self._listen(client, replace(settings, host=HERE))

    async def close(self, drain_s: float) -> None:
        """Listen no more; what is under way gets that long to end. Harmless to repeat."""
        serving, self._serving, self.url = self._serving, None, None
        if serving is not None:
            serving.cancel()
            await asyncio.wait({serving}, timeout=drain_s)
            await cancel_and_wait(serving)

    async def _listen(self, client: Client, settings: GatewaySettings) -> None:
        from lorapool.producer.gateway.server import serve

        listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(serve(client, settings, ready=listening.set_result))
        either: set[asyncio.Future[Any]] = {serving, listening}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            self._serving, self.url = serving, listening.result()
            return
        try:
            serving.result()
        except OSError as error:
            place = f"host = {settings.host!r}, port = {settings.port}"
            raise LorapoolError(f"{place}: no gateway can listen there ({error.strerror or error})") from error
