"""Forgetful: a Redis client that loses the replies of scripts and sends them again, and sees that both said the same.

It stands below a queue, so that every operation is repeated without its caller's doing. What a repeat may say
differently is written here, once, for each script.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

Said = Callable[[Any], Any]

# What a reply means to whoever was not told the first time; scripts not named say the very same again.
MEANS: Mapping[str, Said] = {
    "enqueue": lambda reply: [text.replace(b"new ", b"same ") for text in reply],  # accepted, but not by this call
    "redrive": lambda reply: [b"same" if reply[0] == b"new" else reply[0], *reply[1:]],
    "set_adapter_state": lambda reply: reply is not None,  # the state before
    "release": lambda _given: None,  # nobody is told how many
    "purge_dead": lambda _purged: None,  # what is gone is not counted again
    "purge_waiting": lambda _purged: None,
}


class Forgetful:
    """In front of ``redis``; ``losing`` draws whether the next script's reply is lost.

    ``lost`` counts them by script; ``names``: of scripts, by sha and by text.
    """

    def __init__(self, redis: Any, losing: Random, lost: Counter[str]) -> None:
        self._redis, self._losing, self.lost = redis, losing, lost
        self.names: dict[str, str] = {}
        self.sent = 1  # how often the last script was

    def __getattr__(self, name: str) -> Any:
        return getattr(self._redis, name)

    async def execute_command(self, *command: Any) -> Any:
        first = await self._redis.execute_command(*command)
        self.sent = 1
        if command[0] not in {"EVALSHA", "EVAL"} or self._losing.random() < 0.5:
            return first
        self.sent = 2
        again = await self._redis.execute_command(*command)
        name = self.names.get(command[1], "")
        self.lost[name] += 1
        said = MEANS.get(name, lambda reply: reply)
        assert said(first) == said(again), f"{name} said {first}, and when it was asked again {again}"
        return again
