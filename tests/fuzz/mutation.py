"""Mutation: what strangers send: sound samples changed a little, and values that have ended programs before."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

NASTY = (
    "", " ", "\n", "\r\n", "\t", "\x00", "\x1b[2J", "\x7f", "\ufeff", "\u202e", "\ud800", "a\udfffb", "é",
    "\uff45", "٣",
    "😀",
    ".", "..", "../../etc/passwd", "/", "//", "~", "-", "--", "_base", "*", "a b", "a:b", "a@b@c", "@", "0.", "0.0.a",
    "None", "null", "true", "NaN", "nan", "inf", "-inf", "1e400", "-0", "0x10", "1_000", "٣٤", "9" * 5000, "-1", "1.5",
    "%s%n", "{}", "{0}", "{{7*7}}", "$(id)", "'\"", "\\", "a" * 200, "x" * 20_000, "(a+)+$", ".?" * 40 + "Q",
    "[" * 2000,
    "file:///", "file://host/x", "s3://", "hf://a/b@c", "http://[", "redis://:secret@h/0", "memory://x", "::", "[::1",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2, 7, 63, 64, 65, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30, 10**400, 0.5, -0.5,
    1e308,
    -1e308, 5e-324, float("nan"), float("inf"), float("-inf"),
)  # fmt: skip


def text(random: Random) -> str:
    """Any text: a nasty one, a random one, or two of them."""
    match random.randrange(4):
        case 0:
            return "".join(
                chr(random.choice((random.randrange(128), random.randrange(0x11000))))
                for _ in range(random.randrange(12))
            )
        case 1:
            return random.choice(NASTY) + random.choice(NASTY)
    return random.choice(NASTY)


def junk(random: Random) -> bytes:
    """Any bytes."""
    match random.randrange(4):
        case 0:
            return random.randbytes(random.randrange(64))
        case 1:
            return random.choice(
                (b"\xff\xfe", b"\xed\xa0\x80", b"\x00", b"\x80" * 30, b"a b", b"\xc0\x80", b"\n", b"1e400")
            )
    return text(random).encode(errors="surrogatepass")


def value(random: Random, depth: int = 3) -> Any:
    """Any value that JSON knows, and some that it should not."""
    match random.randrange(8 if depth else 5):
        case 0:
            return random.choice((None, True, False))
        case 1 | 2:
            return random.choice(NUMBERS)
        case 3 | 4:
            return text(random)
        case 5:
            return [value(random, depth - 1) for _ in range(random.randrange(4))]
        case 6:
            return {text(random): value(random, depth - 1) for _ in range(random.randrange(4))}
    return deep(random.choice((10, 100)))


def deep(levels: int) -> Any:
    """A list in a list in a list."""
    found: Any = []
    for _ in range(levels):
        found = [found]
    return found


def changed(random: Random, sample: Any, times: int = 3) -> Any:
    """The sample, changed in up to so many places: a value for another, an item gone, doubled, renamed."""
    found = copy.deepcopy(sample)
    for _ in range(random.randint(1, times)):
        found = _changed_once(random, found)
    return found


def _changed_once(random: Random, found: Any) -> Any:
    if isinstance(found, dict) and found and random.random() < 0.9:
        key = random.choice(list(found))
        match random.randrange(6):
            case 0:
                del found[key]
            case 1:
                found[text(random)] = found.pop(key)
            case 2:
                found[text(random)] = value(random)
            case _:
                found[key] = _changed_once(random, found[key])
        return found
    if isinstance(found, list) and found and random.random() < 0.9:
        at = random.randrange(len(found))
        match random.randrange(5):
            case 0:
                del found[at]
            case 1:
                found.insert(at, copy.deepcopy(found[at]))
            case _:
                found[at] = _changed_once(random, found[at])
        return found
    if isinstance(found, str) and random.random() < 0.5:
        return changed_text(random, found)
    if isinstance(found, bytes):
        return changed_bytes(random, found) if random.random() < 0.8 else junk(random)
    return value(random)


def changed_text(random: Random, sample: str) -> str:
    """A text with a part cut out, doubled, or something nasty within."""
    at, to = sorted((random.randint(0, len(sample)), random.randint(0, len(sample))))
    return sample[:at] + random.choice(("", sample[at:to] * 2, random.choice(NASTY))) + sample[to:]


def changed_bytes(random: Random, sample: bytes, times: int = 4) -> bytes:
    """Bytes with bits flipped, a part cut out, doubled, replaced, or the end missing."""
    found = bytearray(sample)
    for _ in range(random.randint(1, times)):
        at, to = sorted((random.randint(0, len(found)), random.randint(0, len(found))))
        match random.randrange(6):
            case 0 | 1 if found:
                found[min(at, len(found) - 1)] ^= 1 << random.randrange(8)
            case 2:
                del found[at:]
            case 3:
                del found[at : min(to, at + 16)]
            case 4:
                found[at:at] = found[at : min(to, at + 64)]
            case _:
                found[at : at + random.randrange(4)] = junk(random)[:64]
    return bytes(found)


def one_of(*samples: Any) -> Callable[[Random], Any]:
    """Draws any of them, changed; now and then as it is, or something else altogether."""

    def draw(random: Random) -> Any:
        sample = random.choice(samples)
        chance = random.random()
        return sample if chance < 0.05 else value(random) if chance < 0.1 else changed(random, sample)

    return draw


def lines(random: Random, samples: Sequence[bytes], most: int = 6) -> list[bytes]:
    """A few of them, most changed."""
    return [changed_bytes(random, random.choice(samples)) for _ in range(random.randrange(most))]
