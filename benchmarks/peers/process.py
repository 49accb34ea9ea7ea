"""A peer in a process of its own, kept loaded between its turns."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.rounds import Failed
from benchmarks.venvs import python_of

ANSWERS_S = 900.0  # for one run, or to load: far longer than any took, for one that hangs
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Peer:
    """A module below benchmarks.peers, named as the peer. Without ``requirements`` it runs in our own venv. ``most``:
    adapters it is asked to mix; ``base``: it is asked to run the base model; ``curve``: it is on the plot."""

    name: str
    most: int
    base: bool = False
    curve: bool = False
    requirements: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def python(self) -> str:
        return python_of(self.name, self.requirements, self.unwanted) if self.requirements else sys.executable


class Process:
    """Starts on entry; ``log`` gets all that the peer prints."""

    def __init__(self, peer: Peer, task: Path, log: Path) -> None:
        self._peer, self._log = peer, log
        command = [peer.python(), "-m", f"benchmarks.peers.{peer.name}", str(task)]
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT,
                env={**os.environ, **peer.environment},
            )  # fmt: skip
        self._answer()

    def run(self, active: int) -> float:
        """Seconds of one run. Raises Failed with the end of its log if the peer died."""
        assert self._process.stdin is not None
        print(active, file=self._process.stdin, flush=True)
        return float(self._answer()["seconds"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], ANSWERS_S)[0]:
            self._process.kill()
            raise Failed(f"{self._peer.name} said nothing for {ANSWERS_S:g} s; its log ends:\n{self._log_end()}")
        line = self._process.stdout.readline()
        if not line:
            raise Failed(f"{self._peer.name} ended with status {self._process.wait()}:\n{self._log_end()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _log_end(self) -> str:
        return "".join(self._log.read_text().splitlines(keepends=True)[-20:])
