"""`lorapool gateway` where it cannot serve: one line says why."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable

import pytest
from typer.testing import Result


def test_without_its_extra(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    monkeypatch.setitem(sys.modules, "lorapool.producer.gateway.server", None)
    refused = run("gateway")
    assert 1 == refused.exit_code
    assert "pip install 'lorapool[gateway]'" in refused.stderr


def test_strangers_are_not_served_without_keys(run: Callable[..., Result]) -> None:
    """A host that others reach is refused, with what to do."""
    refused = run("gateway", "--host", "0.0.0.0", "--port", "0")
    assert 1 == refused.exit_code
    assert "without keys the gateway serves this machine alone" in refused.stderr


def test_a_port_in_use(run: Callable[..., Result]) -> None:
    """It names the port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = run("gateway", "--port", port)
    assert 1 == refused.exit_code
    assert f"port {port}" in refused.stderr
