"""BoundedCall: calls what may never return, such as a read from a mount that hangs, and waits only so long.

Each call runs in a thread of its own; one that does not come back is left behind, and what it does then is lost. Only
so many are left behind at once. Knows nothing of what is called.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from lorapool.shared.errors import AdapterUnavailable

A = TypeVar("A")
R = TypeVar("R")
MAX_LEFT = 8


class BoundedCall(Generic[A, R]):
    """``call`` with one argument, for at most ``seconds``; ``what`` it does, for the message."""

    def __init__(self, call: Callable[[A], R], seconds: float, what: str) -> None:
        self._call, self._seconds, self._what = call, seconds, what
        self._left = 0
        self._lock = threading.Lock()

    def __call__(self, argument: A) -> R:
        """What the call returns or raises. Raises AdapterUnavailable when it took too long, or too many others do."""
        with self._lock:
            if self._left >= MAX_LEFT:
                raise AdapterUnavailable(f"{self._what}: {self._left} others hang, on a mount or a store; see to it")
            self._left += 1
        future: Future[R] = Future()
        threading.Thread(target=self._run, args=(future, argument), name=self._what, daemon=True).start()
        try:
            return future.result(self._seconds)
        except TimeoutError:
            if future.done():  # its own
                raise
            raise AdapterUnavailable(
                f"{self._what}: not done within {self._seconds:g} s: a mount or a store that hangs, or a slow one"
            ) from None

    def _run(self, future: Future[R], argument: A) -> None:
        try:
            result = self._call(argument)
        except BaseException as error:  # noqa: BLE001  raised where it is waited for
            future.set_exception(error)
        else:
            future.set_result(result)
        finally:
            with self._lock:
                self._left -= 1
