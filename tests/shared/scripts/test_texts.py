"""How the Lua texts are put together: of what they say they use, whatever the order, and of nothing else."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import pytest

from lorapool.shared.scripts import script, texts
from lorapool.shared.server.terms import Terms
from tests.docs.conftest import ROOT

FOLDER = ROOT / "shared/scripts"
OPERATIONS = sorted(path.stem for path in (FOLDER / "ops").glob("*.lua"))
PARTS = sorted(f"{path.parent.name}/{path.stem}" for path in FOLDER.glob("*/*.lua"))

LUA = """
    and break do else elseif end false for function if in local nil not or repeat return then true until while
    redis KEYS ARGV string table math unpack select ipairs pairs tonumber tostring type
"""
HIDDEN = re.compile(r"--[^\n]*|'(?:[^'\\\n]|\\.)*'")  # comments and strings
WORD = re.compile(r"(?<![\w.:])[A-Za-z_]\w*(?!\w)")
AT_TOP = re.compile(r"^local (?:function )?([\w, ]+)", re.MULTILINE)
INTRODUCED = (r"\blocal (?:function )?([\w, ]+)", r"\bfor ([\w, ]+) (?:in|=)", r"\bfunction *\w*\(([\w, ]*)")


def names(listed: str) -> Iterator[str]:
    yield from re.findall(r"\w+", listed)


def exported(part: str) -> set[str]:
    """What a file's top level gives names to."""
    return {name for listed in AT_TOP.findall(texts.read(part)) for name in names(listed)}


def mentioned(text: str) -> set[str]:
    """The names that a text reads and does not itself introduce."""
    bare = HIDDEN.sub("''", text)
    own = {name for how in INTRODUCED for listed in re.findall(how, bare) for name in names(listed)}
    keys = set(re.findall(r"(?<![\w.])(\w+) = ", bare))  # of tables
    return set(WORD.findall(bare)) - own - keys - set(LUA.split())


@cache
def library_of() -> dict[str, str]:
    """Where each name of a library is at home."""
    return {name: part for part in PARTS if part.startswith("lib/") for name in exported(part)}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_has_all_that_it_calls(operation: str) -> None:
    """No name in a whole script is unknown to it: neither a function of a library left out nor a constant."""
    assert set() == mentioned(script(operation, Terms(), None, shebang=False).text)


@pytest.mark.parametrize("part", PARTS)
def test_a_file_says_what_it_uses(part: str) -> None:
    """Each file names the libraries whose functions it calls: all of them, and no other."""
    home = library_of()
    used = {home[name] for name in mentioned(texts.read(part)) if name in home}
    assert {f"lib/{library}" for library in texts.uses(part)} == used - {part, texts.PRELUDE}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_libraries_stand_below_what_they_use(operation: str) -> None:
    """Each once, those that it uses above it, the prelude first and the operation last."""
    ordered = texts.parts(operation)
    assert [] == [part for part, times in Counter(ordered).items() if times > 1]
    assert (texts.PRELUDE, f"ops/{operation}") == (ordered[0], ordered[-1])
    late = [
        (part, library)
        for place, part in enumerate(ordered)
        for library in texts.uses(part)
        if f"lib/{library}" not in ordered[:place]
    ]
    assert [] == late


@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_name_is_given_twice(operation: str) -> None:
    """A later library of that name would hide the earlier one's function."""
    given = Counter(name for part in texts.parts(operation) for name in exported(part))
    assert [] == [name for name, times in given.items() if times > 1]


def test_the_order_of_uses_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backwards, the same text."""
    expected, read = texts.parts("claim"), texts.read

    def backwards(part: str) -> str:
        head, _, rest = read(part).partition("\n")
        words = head.removeprefix("-- uses: ").split()
        return f"-- uses: {' '.join(reversed(words))}\n{rest}" if head.startswith("-- uses: ") else read(part)

    monkeypatch.setattr(texts, "read", backwards)
    assert expected == texts.parts("claim")


@pytest.mark.parametrize(
    ("library", "refused"),
    [("-- uses: nobody\n", "lib/one.lua uses nobody"), ("-- uses: two\n", "ops/op → lib/one → lib/two → lib/one")],
)
def test_uses_that_cannot_be(monkeypatch: pytest.MonkeyPatch, library: str, refused: str) -> None:
    """A library that is not there, and a circle, are refused with the way to them."""
    there = {"ops/op": "-- uses: one\n", "lib/one": library, "lib/two": "-- uses: one\n"}

    def read(part: str) -> str:
        if part not in there:
            raise FileNotFoundError(part)
        return there[part]

    monkeypatch.setattr(texts, "read", read)
    with pytest.raises((LookupError, ValueError), match=refused):
        texts.parts("op")


def test_an_unknown_constant_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that Python does not know never reaches a server."""
    monkeypatch.setattr(texts, "read", lambda _part: "return TERMS.PATIENCE")
    with pytest.raises(KeyError, match=r"TERMS\.PATIENCE is no constant"):
        script.__wrapped__("op", Terms(), None, shebang=False)


def test_what_is_missing_is_seen() -> None:
    """Of these checks: a name that nobody gives is found, one in a string, a comment or a table's key is not."""
    text = (
        "local a, b = call(1), { c = 2 }\nfor i = 1, d do -- e\n  a.f('g') -- h\nend\nlocal function j(k) return k end"
    )
    assert {"call", "d"} == mentioned(text)


def test_lanes_differ_by_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Python says of lanes stands in the text: a change there is a change here."""
    text = script("enqueue", Terms(low_passed_ms=123_456), None, shebang=False).text
    assert "low = 123456, low_over_quota = 123456" in text
    assert all(f"'{earlier}', '{later}'" in text for earlier, later in pairwise(["high", "high_over_quota", "normal"]))
