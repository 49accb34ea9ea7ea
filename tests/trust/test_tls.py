"""Passwords and prompts travel over TLS where the URL says ``rediss://``, as docs/trust.md asks."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from lorapool.producer.client.client import Client
from lorapool.shared.errors import RedisUnreachable
from tests.fake_model import expected
from tests.fleet import fake_worker
from tests.trust.conftest import POOL, denied, url_of


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost that nobody knows, its key beside it."""
    folder = tmp_path_factory.mktemp("tls")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(["openssl", "req", *kind, *names, *files], check=True, capture_output=True)
    return folder / "cert.pem"


@asynccontextmanager
async def behind_tls(server: str, certificate: Path) -> AsyncIterator[str]:
    """``host:port`` that speaks TLS with that certificate, in front of the server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))

    async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError, ssl.SSLError):
            while chunk := await source.read(65536):
                target.write(chunk)
                await target.drain()
        target.close()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = server.partition(":")
        up, down = await asyncio.open_connection(host, int(port))
        await asyncio.gather(carry(reader, down), carry(up, writer))

    door = await asyncio.start_server(meet, "localhost", 0, ssl=context)
    try:
        yield f"localhost:{door.sockets[0].getsockname()[1]}"
    finally:
        door.close()


async def test_clients_and_workers_speak_tls(server: str, certificate: Path, admin: Any) -> None:
    """A job is asked and answered with both sides behind TLS; who does not know the certificate is not fooled."""
    async with behind_tls(server, certificate) as door:
        trusting = f"?ssl_ca_certs={certificate}"
        worker_url, agent_url = (url_of(door, role).replace("redis:", "rediss:") for role in ("worker", "agent"))
        with fake_worker(worker_url + trusting, environment={"LORAPOOL_POOL": POOL}, pool=POOL) as worker:
            async with Client(agent_url + trusting, pool=POOL) as agent:
                job = await agent.submit(None, "hush", max_new_tokens=3)
                assert expected("hush", "", 3) == (await job.result(30)).token_ids
            assert await asyncio.to_thread(worker.stop) == 0
        with pytest.raises(RedisUnreachable, match="certificate"):
            async with Client(agent_url, pool=POOL):
                pass
    assert [] == denied(admin)
