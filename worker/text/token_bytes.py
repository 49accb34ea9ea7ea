"""Token bytes: what each token of an answer adds to its text, to the byte, where a character may be of several tokens.

By the tokenizer's own decoder: the byte alphabet of byte-level BPE, or what sentencepiece-like ones replace, with bytes
written as ``<0x0A>``. For a decoder of another kind (WordPiece) it is the text of the token alone, in which the blank
before a word may be missing. Special tokens, which are no part of the text, are spelled as they are written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from tokenizers import Tokenizer as FastTokenizer

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_PIECES = frozenset({"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"})
Spell = Callable[[str], bytes]


class TokenBytes:
    """Of one tokenizer; what was asked for once is known."""

    def __init__(self, fast: FastTokenizer) -> None:
        self._fast = fast
        steps = list(_steps(json.loads(fast.decoder.__getstate__()))) if fast.decoder is not None else []
        self._spell = _speller(steps)
        self._begun = [change for change in map(_beginning, steps) if change]
        self._known: dict[int, bytes] = {}
        self._special = {token_id for token_id, token in fast.get_added_tokens_decoder().items() if token.special}

    def is_special(self, token_id: int) -> bool:
        """No part of the text."""
        return token_id in self._special

    def of(self, token_id: int, *, first: bool = False) -> bytes:
        """Empty for an id that is none. ``first``: no text is before it, and a blank that only marks where a word
        begins is left out there, as it is in the text."""
        known = self._known.get(token_id)
        if known is None:
            known = self._known[token_id] = self._of(token_id)
        if first and token_id not in self._special:
            for change in self._begun:
                known = change(known)
        return known

    def _of(self, token_id: int) -> bytes:
        token = self._fast.id_to_token(token_id)
        if token is None:
            return b""
        if token_id in self._special:
            return bytes(token.encode())
        return bytes(self._fast.decode([token_id]).encode()) if self._spell is None else self._spell(token)


def _steps(decoder: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The decoder's, one after another."""
    if decoder["type"] != "Sequence":
        yield decoder
        return
    for step in decoder["decoders"]:
        yield from _steps(step)


def _speller(steps: list[dict[str, Any]]) -> Spell | None:
    """How these steps spell a token; None where that hangs on its neighbours, or they are not known here."""
    kinds = {step["type"] for step in steps}
    if "ByteLevel" in kinds and kinds <= {"ByteLevel", "Fuse"}:
        return _byte_level
    changes = [_replaced(step) for step in steps if step["type"] in {"Replace", "Metaspace"}]
    if not kinds or not kinds <= _PIECES or None in changes:
        return None
    falls_back = "ByteFallback" in kinds

    def spell(token: str) -> bytes:
        if falls_back and (byte := _BYTE.fullmatch(token)):
            return bytes.fromhex(byte[1])
        for change in changes:
            token = token.replace(*change) if change else token
        return token.encode()

    return spell


def _replaced(step: dict[str, Any]) -> tuple[str, str] | None:
    """What by what; None for a pattern that is an expression."""
    if step["type"] == "Metaspace":
        return step["replacement"], " "
    return (step["pattern"]["String"], step["content"]) if "String" in step["pattern"] else None


def _beginning(step: dict[str, Any]) -> Callable[[bytes], bytes] | None:
    """What a step does to the token that begins the text."""
    if step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never":
        return lambda spelled: spelled.replace(b" ", b"")
    if step["type"] == "Strip" and step["content"] == " " and step["start"] == 1:
        return lambda spelled: spelled.removeprefix(b" ")
    return None


def _alphabet() -> dict[str, int]:
    """GPT-2's: a printable byte is its own letter, the others have letters from U+0100 on, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    own = {chr(byte): byte for byte in printable}
    return own | {chr(0x100 + place): byte for place, byte in enumerate(others)}


_BYTES = _alphabet()


def _byte_level(token: str) -> bytes:
    """A token with a letter that is none of the alphabet, as an added one may have, stands for itself."""
    try:
        return bytes(_BYTES[letter] for letter in token)
    except KeyError:
        return token.encode()
