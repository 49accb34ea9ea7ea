"""Tally: what a partition counts beside its jobs: adapters loaded, requests refused before they became jobs.

Each report has a name of its own and counts once, however often it is sent. Knows nothing of who reports.
"""

from __future__ import annotations

from collections.abc import Mapping

from lorapool.shared.queue.replies import whole_numbers
from lorapool.shared.scripts import Scripts
from lorapool.shared.server.connection import Server
from lorapool.shared.server.keys import Keys


class Tally:
    """``broker.tally``."""

    def __init__(self, server: Server, scripts: Scripts, keys: Keys) -> None:
        self._server, self._scripts, self._keys = server, scripts, keys

    async def add_loads(self, worker: str, report: str, loads: Mapping[str, int]) -> None:
        """Add to the ``loads`` of adapters: how often each went into a device slot."""
        await self._add(worker, report, {(f"stats:{ref}", "loads"): n for ref, n in loads.items()})

    async def add_refusals(self, client: str, report: str, reasons: Mapping[str, int]) -> None:
        """Add to ``refusals``, by reason."""
        await self._add(client, report, {("refused", reason): n for reason, n in reasons.items()})

    async def refusals(self) -> dict[str, int]:
        """Requests refused before they became jobs, by the error's name; of clients that count them."""
        return whole_numbers(await self._server.command("HGETALL", self._keys.one("refused")))

    async def _add(self, reporter: str, report: str, counts: Mapping[tuple[str, str], int]) -> None:
        added = (arg for (key, field), n in counts.items() for arg in (key, field, n))
        await self._scripts.run("tally", reporter, report, *added)
