"""What a peer's process does: load once, then one whole run a line asked for, until its input ends.

Runs inside the peer's own venv, so it knows the standard library only. The first line it answers says ``ready``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Task:
    """Workload W as a file carries it. Request ``i`` uses adapter ``i mod N`` when N are active. ``gguf``: the file
    that ``model`` was made from; ``texts``: the prompts for who takes no tokens; ``scratch``: a folder for what is made
    of them, gone after the benchmark."""

    model: str
    gguf: str
    scratch: str
    texts: list[str]
    prompts: list[list[int]]
    new_tokens: int
    adapters: list[str]
    rank: int
    dtype: str

    def adapter_of(self, request: int, active: int) -> int | None:
        """Index of the adapter that a request uses; None is the base model."""
        return request % active if active else None


class Peer(Protocol):
    task: Task

    def run(self, active: int) -> float:
        """Seconds for one whole run of ``task`` over ``active`` adapters, which are loaded before the clock starts."""


def main(load: Callable[[Task], Peer]) -> None:
    """``python -m benchmarks.peers.NAME TASK.json``. What libraries print goes to standard error.

    The first run over so many adapters is warmed up by one of the same requests with two new tokens."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    task = Task(**json.loads(Path(sys.argv[1]).read_text()))
    peer, warm = load(task), set[int]()
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        active = int(line)
        if active not in warm:
            peer.task = replace(task, new_tokens=2)
            peer.run(active)
            peer.task = task
            warm.add(active)
        print(json.dumps({"seconds": peer.run(active)}), file=answers)
    answers.close()
    os._exit(0)  # some peers' threads never end
