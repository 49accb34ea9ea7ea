"""The socket that a gateway listens on."""

from __future__ import annotations

import socket

import pytest

from lorapool.producer.gateway.server import listening
from lorapool.producer.gateway.settings import GatewaySettings


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_an_answer_is_not_held_back_until_the_client_acknowledges_its_head(host: str) -> None:
    """Whatever loop serves: of an answer in two writes the second would wait for some 40 ms."""
    settings = GatewaySettings(host=host, port=0)
    with listening(settings) as listener, socket.create_connection(listener.getsockname()):
        listener.settimeout(60)
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
