"""gateway: OpenAI's API and LoRAX's over HTTP, until Ctrl-C or SIGTERM.

What it needs is an extra of the package, imported only here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import typer

from lorapool.producer.client.client import Client
from lorapool.producer.commands import options as o
from lorapool.producer.commands.render import failure, note
from lorapool.producer.commands.session import refuse
from lorapool.shared import logs
from lorapool.shared.errors import LorapoolError


def gateway(  # noqa: PLR0917 - typer takes one argument a flag
    host: o.Host = "127.0.0.1",
    port: o.Port = 8080,
    files: o.Files = "~/.cache/lorapool/files",
    batch_lease: o.BatchLease = 15.0,
    on_disconnect: o.OnDisconnect = o.Disconnect.CANCEL,
    default_max_tokens: o.DefaultMaxTokens = 2048,
    max_body: o.MaxBody = 8 << 20,
    max_connections: o.MaxConnections = 8192,
    ping: o.Ping = 15.0,
    slow: o.Slow = 30.0,
    drain: o.Drain = 30.0,
    redis_url: o.RedisUrl = None,
    pool: o.Pool = None,
    as_json: o.Json = False,
) -> None:
    """Serve OpenAI's API and LoRAX's over HTTP: any number of these serve one pool.

    A request is a job of the queue. SIGTERM lets what is under way end, then ends with 0. Without keys it listens on
    this machine alone.
    """
    check_installed(as_json=as_json)
    from lorapool.producer.gateway.server import serve
    from lorapool.producer.gateway.settings import GatewaySettings

    settings = GatewaySettings(
        host=host,
        port=port,
        files=files,
        batch_lease_s=batch_lease,
        cancel_on_disconnect=on_disconnect is o.Disconnect.CANCEL,
        default_max_tokens=default_max_tokens,
        max_body_bytes=max_body,
        max_connections=max_connections,
        ping_s=ping,
        slow_s=slow,
        drain_s=drain,
    )

    async def run() -> None:
        async with Client(redis_url, pool=pool, agent="gateway") as client:
            keyed = await client.keys.any()
            await serve(client, settings, ready=lambda url: _say_where(url, keyed=keyed))

    logs.configure("info")
    try:
        with suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(run())
    except LorapoolError as error:
        refuse(error, as_json=as_json)
    except OSError as error:
        failure("OSError", f"cannot listen on {host} port {port}: {error.strerror or error}", as_json=as_json)
        raise typer.Exit(1) from None


def check_installed(*, as_json: bool) -> None:
    """Ends the program, saying what to install, where the extra is not there."""
    try:
        import lorapool.producer.gateway.server  # noqa: F401 - to see whether it can be
    except ModuleNotFoundError as missing:
        message = f"the gateway needs {missing.name}: pip install 'lorapool[gateway]'"
        failure("ModuleNotFoundError", message, as_json=as_json)
        raise typer.Exit(1) from None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where there is one, which takes about a tenth less for a request: the extra brings it but for Windows
    and PyPy."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


def _say_where(url: str, *, keyed: bool) -> None:
    note(
        f"lorapool gateway: {url}/v1 ({'asks for an API key' if keyed else 'without keys: for this machine alone'})",
        style="",
    )
