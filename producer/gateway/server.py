"""The gateway's server: listens and says where; told to end, it drains.

It then accepts nothing more, lets what is under way end, and breaks off what does not in time: the jobs live on, and
another replica can be asked for their answers.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import uvicorn
from starlette.types import ASGIApp

from lorapool.producer.client.client import Client
from lorapool.producer.console.recorder import recording
from lorapool.producer.gateway.app import create_app
from lorapool.producer.gateway.connection import connections
from lorapool.producer.gateway.open_files import make_room
from lorapool.producer.gateway.settings import GatewaySettings
from lorapool.shared.errors import InvalidRequest
from lorapool.shared.tasks import cancel_and_wait

Ready = Callable[[str], None]  # with the URL
BACKLOG = 1024


async def serve(client: Client, settings: GatewaySettings, *, ready: Ready = lambda _: None) -> None:
    """Serve until cancelled, or told to end by a signal. ``client`` is open, and stays open.

    Raises InvalidRequest for a host that strangers reach while the pool has no keys, OSError where it cannot listen.
    """
    if not await client.keys.any():
        check_host(settings.host)
    make_room(settings.max_connections)
    with listening(settings) as listener:
        url = _url(settings.host, listener.getsockname()[1])
        app = create_app(client, settings)
        server = _Server(_config(app, settings), lambda: ready(url))
        async with recording(client), app.state.feeding.beside():
            await _until_told(server, listener)


async def _until_told(server: uvicorn.Server, listener: socket.socket) -> None:
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        await asyncio.wait((serving,))
        raise
    finally:
        await cancel_and_wait(serving)


def check_host(host: str) -> None:
    """Without keys, whoever reaches the port may ask: so only this machine does. Raises InvalidRequest."""
    if not is_loopback(host):
        raise InvalidRequest(
            f"host = {host!r}: without keys the gateway serves this machine alone, so give 127.0.0.1, ::1 or "
            "localhost; or make a key first, with `lorapool keys add`"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class _Server(uvicorn.Server):
    """uvicorn's, which says when it has begun, and whose end by a signal is no death by it."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        try:
            for number in numbers:
                loop.add_signal_handler(number, self.handle_exit, number, None)
        except (ValueError, RuntimeError):  # in another thread there are none
            yield
            return
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


def _config(app: ASGIApp, settings: GatewaySettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=connections(settings.max_connections, settings.slow_s),
        ws="none",
        lifespan="off",
        loop="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=round(settings.keep_alive_s),
        timeout_graceful_shutdown=round(settings.drain_s),
    )


@contextmanager
def listening(settings: GatewaySettings) -> Iterator[socket.socket]:
    """The socket that clients connect to. Raises OSError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG) as listener:
        listener.setblocking(False)  # noqa: FBT003 - its only argument
        # Connections inherit it; asyncio sets it only where a socket names its protocol, which those accepted do not.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listener


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
