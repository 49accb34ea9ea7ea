"""The pool over HTTP: a gateway for as long as it is needed, and one question by plain ``curl``."""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from examples.screen import Screen
from lorapool.producer import Client
from lorapool.producer.gateway.server import serve
from lorapool.producer.gateway.settings import GatewaySettings
from lorapool.shared.tasks import cancel_and_wait

MAX_TOKENS = 40


@asynccontextmanager
async def gateway(pool: Client, port: int) -> AsyncIterator[str]:
    """Serves that pool on this machine; yields the URL. ``port`` 0 takes a free one; OSError where it is taken."""
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(pool, GatewaySettings(port=port), ready=listening.set_result))
    serving.add_done_callback(lambda _: listening.cancel())
    try:
        yield await _first(listening, serving)
    finally:
        await cancel_and_wait(serving)


async def _first(listening: asyncio.Future[str], serving: asyncio.Task[None]) -> str:
    try:
        return await listening
    except asyncio.CancelledError:
        if serving.done():
            serving.result()
        raise


async def ask_by_curl(url: str, model: str, question: str, screen: Screen) -> None:
    """Show the command as one would type it, and what it prints."""
    body = {"model": model, "max_tokens": MAX_TOKENS, "messages": [{"role": "user", "content": question}]}
    command = [
        "curl", "-s", f"{url}/v1/chat/completions", "-H", "content-type: application/json", "-d", json.dumps(body)
    ]  # fmt: skip
    screen.show(f"\n$ {shlex.join(command)}", wrap=False)
    if shutil.which("curl") is None:
        screen.show("(there is no curl on this machine)\n")
        return
    asking = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    printed, _ = await asking.communicate()
    screen.show(json.dumps(json.loads(printed), indent=2) + "\n", wrap=False)
