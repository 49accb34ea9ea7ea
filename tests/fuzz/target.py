"""Target: what is fuzzed, and one case of it tried: within its time, with nothing but typed errors."""

from __future__ import annotations

import faulthandler
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from types import FrameType
from typing import Any

from lorapool.shared.errors import LorapoolError

FROZEN_S = 60.0  # past its time by so much


class TooLong(BaseException):
    """A case took longer than its target allows. No Exception: what is fuzzed must not swallow it."""


@dataclass(frozen=True)
class Target:
    """``draw`` makes a case; ``check`` has the product read it, and raises for what must not be."""

    name: str
    draw: Callable[[Random], Any]
    check: Callable[[Any], None]
    limit_s: float = 1.0
    allowed: tuple[type[Exception], ...] = (LorapoolError,)
    prepare: Callable[[], object] = lambda: None  # before its first case: imports, processes


@dataclass(frozen=True)
class Finding:
    """A case that broke the promise, and the line that repeats it."""

    target: str
    seed: str
    kind: str  # of error, and where it came from
    what: str
    case: str

    @property
    def command(self) -> str:
        return f"python -m tests.fuzz --target {self.target} --case {self.seed}"


def tried(target: Target, seed: str) -> Finding | None:
    """The case of that seed, tried."""
    case = target.draw(Random(f"{target.name} {seed}"))
    try:
        with limited(target.limit_s):
            target.check(case)
    except target.allowed:
        return None
    except (Exception, TooLong) as error:  # noqa: BLE001 - that is what is looked for
        kind = f"{type(error).__name__}{where(error)}"
        return Finding(target.name, seed, kind, ascii(str(error))[:200], ascii(case)[:300])
    return None


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises TooLong in the midst of what takes longer."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TooLong(f"longer than {seconds:g} s")

    before, began = signal.signal(signal.SIGALRM, stop), time.monotonic()
    left_s, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left_s:  # the time limit of the test that we run in goes on
            signal.setitimer(signal.ITIMER_REAL, max(0.01, left_s - (time.monotonic() - began)))


@contextmanager
def not_frozen(seconds: float) -> Iterator[None]:
    """Ends the process, telling where it was, when it hears no signal for longer than that: a call that never returns
    from C is a finding too."""
    faulthandler.dump_traceback_later(seconds + FROZEN_S, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def where(error: BaseException) -> str:
    """The last line of ours that it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        frame for frame in frames if "/site-packages/" not in frame.filename and "/lib/python" not in frame.filename
    ]
    return f" at {ours[-1].filename.rpartition('/')[2]}:{ours[-1].lineno}" if ours else ""
