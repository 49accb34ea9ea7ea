"""The inside of a ConfinedProcess: bounds on its time and memory, and the loop that answers.

Whoever reads a stranger's text here may loop or swell: a timer of the kernel's then ends the process in the middle of
whatever it does, and memory past the bound is refused to it. Knows nothing of what is asked.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def own_bytes() -> int:
    """The address space that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def bound_memory(more_bytes: int) -> None:
    """From now on, take at most so much more than now. May be set anew for each request."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = own_bytes() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def bound_time(seconds: float) -> None:
    """End the process once it has computed for so long, from now; 0 takes the bound away.

    Time of its own, so that a busy machine is not held against what is read.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF's default action ends the process


def report(doing: str) -> None:
    """Let the worker know what is being done: it is named if it ends the process."""
    _write({"doing": doing})


def serve(prepare: Callable[[dict[str, Any]], Callable[[dict[str, Any]], dict[str, Any]]]) -> None:
    """Read the setup, then a request a line, and answer each, until the worker closes the pipe.

    ``prepare`` makes of the setup what answers a request.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    lines = iter(sys.stdin.buffer)
    answer = prepare(json.loads(next(lines)))
    _write({"ready": True})
    for line in lines:
        reply = answer(json.loads(line))
        bound_time(0)
        _write(reply)


def _write(message: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
    sys.stdout.buffer.flush()
