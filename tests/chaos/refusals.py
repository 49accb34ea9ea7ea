"""Refusals: a server that is there and takes nothing for a while: too few replicas, full disk, a looping script."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Literal

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from tests.chaos.server import DurableServer
from tests.fleet import until

Code = Literal["NOREPLICAS", "MISCONF", "BUSY"]
CODES: tuple[Code, ...] = ("NOREPLICAS", "MISCONF", "BUSY")


async def refuse(server: DurableServer, code: Code, seconds: float) -> None:
    """For so long; then it takes everything again."""
    admin = Redis.from_url(server.url)
    try:
        await {"NOREPLICAS": _too_few_replicas, "MISCONF": _full_disk, "BUSY": _busy}[code](server, admin, seconds)
    finally:
        await admin.aclose()


async def _too_few_replicas(_: DurableServer, admin: Redis, seconds: float) -> None:
    await admin.config_set("min-replicas-to-write", 1)
    await asyncio.sleep(seconds)
    await admin.config_set("min-replicas-to-write", 0)


async def _full_disk(server: DurableServer, admin: Redis, seconds: float) -> None:
    """Its last snapshot could not be written."""
    snapshot = server.folder / "dump.rdb"
    in_the_way = snapshot / "in the way"
    in_the_way.mkdir(parents=True)
    await admin.config_set("save", "3600 1000000")
    await _snapshot(admin, "err")
    await asyncio.sleep(seconds)
    in_the_way.rmdir()
    snapshot.rmdir()
    await _snapshot(admin, "ok")
    await admin.config_set("save", "")
    snapshot.unlink()


async def _snapshot(admin: Redis, status: str) -> None:
    async def taken() -> bool:
        persistence = await admin.info("persistence")
        if persistence["rdb_bgsave_in_progress"]:
            return False
        if persistence["rdb_last_bgsave_status"] == status:
            return True
        with suppress(ResponseError):  # the append-only file is being rewritten
            await admin.bgsave()
        return False

    await until(taken, every_s=0.05)


async def _busy(_: DurableServer, admin: Redis, seconds: float) -> None:
    await admin.config_set("busy-reply-threshold", 1)
    looping = asyncio.create_task(_loop(admin))
    await asyncio.sleep(seconds)
    await admin.script_kill()
    await looping
    await admin.config_set("busy-reply-threshold", 5000)


async def _loop(admin: Redis) -> None:
    with suppress(ResponseError):
        await admin.eval("while true do end", 0)
