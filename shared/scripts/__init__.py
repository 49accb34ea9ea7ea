"""The Lua texts, and how they are run: EVALSHA, then EVAL where the server does not know the text yet.

A script is the shebang, the prelude, the libraries that it needs (texts.py), and its own text, with constants written
in (constants.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from typing import Any

from redis.exceptions import NoScriptError

from lorapool.shared.scripts import texts
from lorapool.shared.scripts.constants import written_in
from lorapool.shared.server.server import Arg, Server
from lorapool.shared.server.terms import Terms

NOW = "return math.floor(t[1] * 1000 + t[2] / 1000)"  # the line of the prelude that tests replace

# A full server refuses these; all others may still settle, cancel and tidy up.
_NEW_WORK = frozenset({"enqueue", "redrive", "register", "schedule_add", "file_begin", "batch_add", "key_add"})


@dataclass(frozen=True, slots=True)
class Script:
    name: str
    text: str
    sha: str


class Scripts:
    """The scripts of one partition or catalog, bound to the prefix of its keys.

    ``clock`` names a key to read the time from instead of TIME: only tests set it.
    """

    def __init__(self, server: Server, prefix: str, terms: Terms, clock: str | None = None) -> None:
        self._server, self._prefix = server, prefix
        self._terms, self._clock = terms, clock
        self._shebang = not server.is_fake

    async def run(self, name: str, *args: Arg) -> Any:
        """One round trip (two when the server has not seen the script)."""
        script = self[name]
        try:
            return await self._server.command("EVALSHA", script.sha, 1, self._prefix, *args)
        except NoScriptError:
            return await self._server.command("EVAL", script.text, 1, self._prefix, *args)

    def __getitem__(self, name: str) -> Script:
        return script(name, self._terms, self._clock, self._shebang)


@cache
def script(name: str, terms: Terms, clock: str | None, shebang: bool) -> Script:
    """The whole of an operation; ``clock`` and ``shebang`` as for Scripts."""
    text = written_in(texts.text(name), terms)
    if clock is not None:
        assert NOW in text
        text = text.replace(NOW, f"return tonumber(redis.call('GET', '{clock}')) or {NOW.removeprefix('return ')}")
    if shebang:
        text = ("#!lua\n" if name in _NEW_WORK else "#!lua flags=allow-oom\n") + text
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())
