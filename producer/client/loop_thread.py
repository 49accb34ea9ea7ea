"""LoopThread: an event loop on a thread of its own, for callers that block or have a loop of their own.

Every wait ends: with its outcome, with the end of the loop, or at once where the loop cannot be reached.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from lorapool.producer.client.home import Home
from lorapool.shared.errors import ClientClosed, LorapoolError
from lorapool.shared.tasks import cancel_and_wait

T = TypeVar("T")
_CLOSED = "the client was closed during this call; jobs that were accepted go on"


class LoopThread:
    """An event loop on a daemon thread; ``run`` waits for a coroutine there, and cancels it on Ctrl-C.

    ``call`` is the same for code that has a loop of its own: its loop goes on meanwhile. Both raise what would
    otherwise wait for ever: ClientClosed once it has stopped, ForeignClient in a forked child, which has no such
    thread, and LorapoolError on the thread itself.
    """

    def __init__(self) -> None:
        self._home = Home()
        self._loop = asyncio.new_event_loop()
        self._gate = threading.Lock()  # whatever passes it before the end is run or cancelled
        self._stopped = False
        self._thread = threading.Thread(target=self._serve, name="lorapool-sync", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        future = self._begin(work)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise
        except concurrent.futures.CancelledError:
            raise ClientClosed(_CLOSED) from None

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        future = self._begin(work)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and not task.cancelling():  # nobody cancelled the caller
                raise ClientClosed(_CLOSED) from None
            raise

    def _begin(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        try:
            self._check()
            with self._gate:
                self._check()
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        except LorapoolError:
            work.close()
            raise

    def _check(self) -> None:
        self._home.check_process()
        self._check_thread()
        if self._stopped:
            raise ClientClosed("this client is closed: open a new one")

    def _check_thread(self) -> None:
        if threading.current_thread() is self._thread:
            raise LorapoolError("a callback of this client calls the client and waits for itself: use another one")

    def _serve(self) -> None:
        """Run the loop to its end; a callback's sys.exit() is its caller's matter, and ends no loop."""
        while not self._stopped:
            with suppress(SystemExit, KeyboardInterrupt):
                self._loop.run_forever()

    @property
    def running(self) -> bool:
        """Whether there is something to stop: in a forked child there is not."""
        return not self._stopped and self._home.here

    def stop(self) -> None:
        """End the loop; calls of other threads that are still under way raise. Nothing in a forked child."""
        if not self._home.here:
            return
        self._check_thread()
        with self._gate:
            if self._stopped:
                return
            self._stopped = True
        asyncio.run_coroutine_threadsafe(self._wind_up(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _wind_up(self) -> None:
        """End all that runs on this loop."""
        await cancel_and_wait(*(asyncio.all_tasks() - {asyncio.current_task()}))
        await self._loop.shutdown_asyncgens()
