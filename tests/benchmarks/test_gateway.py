"""The gateway's benchmark: its client counts what there is, and a short run of it gives its figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.gateway.__main__ import main
from benchmarks.gateway.http_load import Connection, at
from benchmarks.queue.processes import ask, talking

LOAD, MOCK = "benchmarks.gateway.http_load", "benchmarks.gateway.mock_openai"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Sent:
    """A transport that forgets."""

    def write(self, _data: bytes) -> None:
        """Nobody reads it."""


async def test_an_answer_in_pieces_is_one_answer() -> None:
    """A stream, however it is cut: its first bytes and its first word are timed, its last end it."""
    connection = Connection()
    connection.connection_made(Sent())  # type: ignore[arg-type]
    asking = connection.ask(b"x")
    waiting = asking.__await__()
    future = next(waiting)
    for piece in (HEAD, b'1\r\ndata: {"content":""}\n\n\r\n', b'1\r\ndata: {"content":"a"}\n\n\r\n', b"0\r\n\r\n"):
        assert future is not None and not future.done()
        connection.data_received(piece)
    with pytest.raises(StopIteration) as ended:
        next(waiting)
    answer = ended.value.value
    assert (200, True) == (answer.status, b'"a"' in answer.body)
    assert 0 < answer.first_s < answer.first_text_s < answer.seconds


def test_a_volley_is_counted() -> None:
    """All requests of it, over as many connections as there are to be."""
    with talking(sys.executable, MOCK, "run") as mock:
        address = f"127.0.0.1:{mock.hear('port')['port']}"
        heard = ask(
            sys.executable, LOAD, "volley", "requests_s", address=address, body="{}", connections=4, requests=50
        )
    assert 50 == heard["count"]
    assert 0 < heard["p50_ms"] <= heard["p99_ms"]


def test_a_quantile() -> None:
    assert (1, 99, 0.0) == (at(range(1, 101), 0.0), at(range(1, 101), 0.99), at([], 0.5))


@pytest.mark.long
def test_a_short_run_gives_its_figures(tmp_path: Path) -> None:
    """Of a real gateway, a real server and a worker of no-op jobs; what another run left in the file stays."""
    out = tmp_path / "figures.json"
    out.write_text('{"tokens": {"share": 1}}')
    app = typer.Typer()
    app.command()(main)
    flags = ["--parts", "latency,streams", "--rounds", "1", "--count", "5", "--streams", "8"]
    outcome = CliRunner().invoke(app, ["--out", str(out), *flags])
    assert outcome.exit_code == 0, outcome.output
    figures = json.loads(out.read_text())
    assert 0 < figures["latency"]["gateway_p50_ms"]["median"]
    assert 8 == figures["streams"]["whole"]["median"]
    assert {"share": 1} == figures["tokens"]
