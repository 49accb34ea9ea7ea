"""A fakeredis that compiles each script once, as servers do; its own compiles it and sweeps all of Lua at each call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fakeredis.commands_mixins import scripting_mixin

SWEEP = "collectgarbage()"
CALLS_TO_SWEEP = 256


@contextmanager
def scripts_compiled_once() -> Iterator[None]:
    """For the fake servers that are made within."""
    own = scripting_mixin.LUA_MODULE
    scripting_mixin.LUA_MODULE = _Module(own)
    try:
        yield
    finally:
        scripting_mixin.LUA_MODULE = own


class _Module:
    """lupa, with runtimes of ours."""

    def __init__(self, own: Any) -> None:
        self._own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def LuaRuntime(self, **options: Any) -> _Runtime:  # noqa: N802  its name there
        return _Runtime(self._own.LuaRuntime(**options))


class _Runtime:
    """A LuaRuntime that remembers what it compiled."""

    def __init__(self, own: Any) -> None:
        self._own, self._compiled, self._calls = own, dict[bytes, Any](), 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def execute(self, source: bytes | str) -> Any:
        if source == SWEEP:
            self._calls += 1
            return self._own.execute(source) if self._calls % CALLS_TO_SWEEP == 0 else None
        if source not in self._compiled:
            self._compiled[source] = self._own.compile(source)
        return self._compiled[source]()
