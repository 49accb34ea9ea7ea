"""Caller: who a request is from, and what they may ask. Knows no HTTP beyond where a request keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from starlette.requests import Request


@dataclass(frozen=True, slots=True)
class Caller:
    """``key``: the name of their key, None where the pool has none; ``agent``: who their jobs are counted under;
    ``adapters``: patterns of ids that they may ask."""

    key: str | None
    agent: str
    adapters: tuple[str, ...] = ("*",)
    operator: bool = False

    def may_ask(self, adapter_id: str) -> bool:
        """Whether an adapter (by id; ``_base`` is the base model) is theirs to ask."""
        return any(fnmatchcase(adapter_id, pattern) for pattern in self.adapters)

    def may_read(self, agent: str) -> bool:
        """Whether what that agent owns (a job, a file, a batch) is theirs to see."""
        return self.operator or self.key is None or agent == self.agent


ANYONE = Caller(None, "anonymous", operator=True)


def caller_of(request: Request) -> Caller:
    """As ``access.py`` found it."""
    caller: Caller = request.state.caller
    return caller
