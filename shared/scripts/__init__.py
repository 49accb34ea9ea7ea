"""The Lua texts, and how they are run: EVALSHA, then EVAL where the server does not know the text yet.

A script is the shebang, the prelude, the modules its ``-- uses:`` line names, and its own text. ``Terms`` become
constants of the prelude, so that they cost nothing a call and two releases never share a text by accident.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

from lorapool.shared.server.connection import Arg, Server
from lorapool.shared.server.keys import LANES
from lorapool.shared.server.terms import Terms

_USES = re.compile(r"^-- uses: (.+)$", re.MULTILINE)
_NOW = "return math.floor(t[1] * 1000 + t[2] / 1000)"

# A full server refuses these; all others may still settle, cancel and tidy up.
_NEW_WORK = frozenset({"enqueue", "redrive", "register", "schedule_add"})


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
        return _script(name, self._terms, self._clock, self._shebang)


@cache
def _script(name: str, terms: Terms, clock: str | None, shebang: bool) -> Script:
    parts = [_prelude(terms, clock), *_modules(name)]
    text = "\n".join(parts)
    if shebang:
        text = ("#!lua\n" if name in _NEW_WORK else "#!lua flags=allow-oom\n") + text
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def _prelude(terms: Terms, clock: str | None) -> str:
    text = _read("prelude")
    constants = ", ".join(f"{name.upper()} = {value}" for name, value in asdict(terms).items())
    text = text.replace("{} -- TERMS", f"{{ {constants} }}")
    text = text.replace("{} -- LANES", f"{{ {', '.join(map(repr, LANES))} }}")
    if clock is not None:
        assert _NOW in text
        text = text.replace(_NOW, f"return tonumber(redis.call('GET', '{clock}')) or {_NOW.removeprefix('return ')}")
    return text


def _modules(name: str) -> list[str]:
    text = _read(name)
    match = _USES.search(text)
    used = match[1].split() if match else []
    return [*(_read(module) for module in used), text]


def _read(name: str) -> str:
    return (files(__name__) / f"{name}.lua").read_text(encoding="utf-8")
