"""Layout: which arrangement of keys a pool has, so that no release reads or writes those of another by mistake.

A pool's config says it from its first worker on; before that, only the keys that an older release left tell. Asked
until it is known. Knows names of keys, not what they hold.
"""

from __future__ import annotations

import re
import time

from lorapool.shared.catalog.pool_config import LAYOUT_VERSION
from lorapool.shared.errors import PoolMismatch, RedisAuthFailed
from lorapool.shared.server.keys import PoolKeys
from lorapool.shared.server.server import Server

FIRST = 1  # marked a partition ``lp:{<pool>.<p>}:``, which is also how a pool named ``<pool>.<p>`` begins
AGAIN_S = 1.0  # while a pool has no config

# Keys that a partition has and a pool has not.
_OF_A_PARTITION = ("waiting", "ready", "running", "leases", "delayed", "deadlines", "suspects", "served", "reaper")
_LIKE_A_PARTITION = re.compile(r"(?P<pool>.+)\.\d+")


class Layout:
    """The layout of one pool. Methods raise RedisUnreachable or RedisAuthFailed besides what they name."""

    def __init__(self, server: Server, pool: str) -> None:
        self._server, self._pool = server, pool
        self._known, self._looked_at = False, float("-inf")

    async def check(self) -> None:
        """Raises PoolMismatch where the pool's keys are another layout's; costs nothing once the pool is known."""
        if self._known or time.monotonic() - self._looked_at < AGAIN_S:
            return
        base_model, layout = await self._server.command("HMGET", PoolKeys(self._pool).config, "base_model", "layout")
        if base_model is None:
            version = str(FIRST if await self._has_remains() else LAYOUT_VERSION)
        else:
            version = str(FIRST) if layout is None else layout.decode(errors="replace")
        if version != str(LAYOUT_VERSION):
            raise PoolMismatch(mismatch(self._pool, version))
        self._known, self._looked_at = base_model is not None, time.monotonic()

    async def _has_remains(self) -> bool:
        """Whether keys are where the first layout kept a partition of this pool, or of one that has this name."""
        tags = [f"{self._pool}.0", *([self._pool] if _LIKE_A_PARTITION.fullmatch(self._pool) else [])]
        try:
            return any([await self._server.command(*_remains(tag)) for tag in tags])
        except RedisAuthFailed:  # a user of this pool's keys alone cannot see them
            return False


def mismatch(pool: str, version: str) -> str:
    """What to say of a pool with another layout."""
    begins = f"pool {pool!r} has keys of layout {version:.40}, this release has layout {LAYOUT_VERSION}"
    if not version.isdecimal() or int(version) > LAYOUT_VERSION:
        return f"{begins}: update lorapool here, or use another pool"
    return (
        f"{begins}, and would not find its jobs: let them end under the release that made it, then use a pool of "
        f"another name, or delete the keys lp:{{{pool}}}:* and lp:{{{pool}.<number>}}:* (the second only where no pool "
        "has such a name) and register its adapters again"
    )


def _remains(tag: str) -> tuple[str, ...]:
    return ("EXISTS", *(f"lp:{{{tag}}}:{name}" for name in _OF_A_PARTITION))
