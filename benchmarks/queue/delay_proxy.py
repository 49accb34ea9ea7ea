"""A proxy that makes a server farther away: what clients send arrives ``delay_ms`` later, in order; replies at once.

``python -m benchmarks.queue.delay_proxy run --target HOST:PORT --delay-ms 1`` says which port it listens on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from functools import partial

from benchmarks.queue_peers.contest import say

CHUNK_BYTES = 1 << 16


async def serve(host: str, port: int, delay_s: float) -> None:
    """Until cancelled."""
    server = await asyncio.start_server(partial(_join, host, port, delay_s), "127.0.0.1", 0)
    say(port=server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def _join(
    host: str, port: int, delay_s: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    far_reader, far_writer = await asyncio.open_connection(host, port)
    there = asyncio.create_task(_carry(reader, far_writer, delay_s))
    back = asyncio.create_task(_carry(far_reader, writer, 0.0))
    with contextlib.suppress(ConnectionError):
        await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
    for task in (there, back):
        task.cancel()
    for end in (writer, far_writer):
        end.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Bytes are written ``delay_s`` after they came; more may come meanwhile."""
    loop = asyncio.get_running_loop()
    while chunk := await reader.read(CHUNK_BYTES):
        if delay_s:
            loop.call_later(delay_s, writer.write, chunk)
        else:
            writer.write(chunk)
    await asyncio.sleep(delay_s)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["run"])
    parser.add_argument("--target", required=True)
    parser.add_argument("--delay-ms", type=float, required=True)
    arguments = parser.parse_args()
    host, _, port = arguments.target.rpartition(":")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(host, int(port), arguments.delay_ms / 1000))


if __name__ == "__main__":
    main()
