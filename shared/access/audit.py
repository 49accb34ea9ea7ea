"""Audit: who did what to a pool, on what, when and with what outcome; a bounded stream, the last 10,000 acts or so.

What its own scripts do not write there (keys added, keys revoked) is recorded by whoever lets people act. Knows no
acts. All methods raise RedisUnreachable, RedisAuthFailed or RedisFull.
"""

from __future__ import annotations

import secrets
from typing import Any, NamedTuple

from lorapool.shared.connection import Partition
from lorapool.shared.malformed import readable, text_map
from lorapool.shared.plain_text import plain_text
from lorapool.shared.scripts import records

Acts = list["Act"]
MAX_RECENT = 1000
MAX_NAME, MAX_NOTE = 200, 500  # characters


class Act(NamedTuple):
    """``who`` is a key's name, or a word such as cli; ``what`` in the past tense, ``on`` what; ``note`` more of it."""

    at_ms: int  # server's clock
    who: str
    what: str
    on: str
    outcome: str
    note: str


class Audit:
    """The audit stream of a pool."""

    def __init__(self, partition: Partition) -> None:
        self._server, self._scripts, self._keys = partition.server, partition.scripts, partition.keys

    async def record(self, who: str, what: str, on: str = "", *, outcome: str = "done", note: str = "") -> None:
        """Add an act, once, at the server's time; long texts are cut."""
        who, what, on = (plain_text(text, MAX_NAME) for text in (who, what, on))
        outcome, note = (plain_text(text, MAX_NOTE) for text in (outcome, note))
        act = records.Audit(id=secrets.token_hex(8), who=who, what=what, on=on, outcome=outcome, note=note)
        await self._scripts.run("audit", *act)

    async def recent(self, n: int = 100) -> Acts:
        """The last ``n`` (at most 1,000), newest first."""
        most = max(1, min(n, MAX_RECENT))
        entries = await self._server.command("XREVRANGE", self._keys.one("audit"), "+", "-", "COUNT", most)
        return readable("act", entries, _act)


def _act(entry: tuple[bytes, Any]) -> Act:
    entry_id, fields = entry
    text = text_map(fields)
    return Act(int(entry_id.partition(b"-")[0]), *(text[name] for name in Act._fields[1:]))
