"""Grammars: a matcher for each sequence that has a grammar, and the masks of a step.

Compiled in a thread of their own: a sequence waits for its grammar while others run. Knows no logits and no text.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence as Rows
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol

import numpy as np
from llguidance import LLExecutor, LLMatcher, LLTokenizer
from numpy.typing import NDArray

from lorapool.worker.grammar.compiler import GrammarRefused, compiled, first_words

KEPT, KEPT_CHARACTERS = 512, 4 << 20  # of grammars that wait, compiled, for the next request of the same
STACK_BYTES = 64 << 20  # the compiler descends as deep as a grammar does; its judge had 2 MiB
_NICENESS = 10


class Spelled(Protocol):
    """A sequence, as far as its grammar goes."""

    grammar: str | None
    matcher: Any
    output_ids: list[int]

    @property
    def bans_eos(self) -> bool: ...


class Masks(NamedTuple):
    """Which tokens may come next: a bit a token, lowest first, 1 where it may. ``bits`` [len(at), words] are of the
    rows ``at``; ``refused``: rows whose grammar went beyond its limits."""

    at: list[int]
    bits: NDArray[np.uint32]
    refused: dict[int, GrammarRefused]


class Grammars:
    """``ready`` and ``masks`` are the engine's thread's. ``tokens``: the vocabulary, with what ends an answer."""

    def __init__(self, tokens: LLTokenizer) -> None:
        self._tokens = tokens
        self._executor = LLExecutor(len(os.sched_getaffinity(0)))
        self._words = (tokens.vocab_size + 31) // 32
        self._ends = _bits_of(tokens.eos_tokens, self._words)
        self._known: OrderedDict[str, Future[LLMatcher]] = OrderedDict()
        self._characters = 0  # of the texts known
        self._wanted: SimpleQueue[tuple[str, Future[LLMatcher]] | None] = SimpleQueue()
        self._start()

    def ready(self, sequence: Spelled) -> bool:
        """Give it a matcher, unless it has one or needs none; False while its grammar is compiled. Raises
        GrammarRefused."""
        if sequence.grammar is None or sequence.matcher is not None:
            return True
        known = self._wish(sequence.grammar)
        if not known.done():
            return False
        sequence.matcher = matcher = known.result().deep_copy()
        matcher.consume_tokens(sequence.output_ids)
        return True

    def masks(self, rows: Rows[Spelled]) -> Masks | None:
        """In one parallel call for all rows with a grammar; None if there are none."""
        matched = [(at, row, row.matcher) for at, row in enumerate(rows) if row.matcher is not None]
        if not matched:
            return None
        bits = np.zeros((len(matched), self._words), dtype=np.uint32)
        pairs: list[Any] = [(matcher, index) for index, (_, _, matcher) in enumerate(matched)]
        self._executor.unsafe_compute_mask_ptr(pairs, bits.ctypes.data, 4 * self._words, len(matched))
        refused = {}
        for index, (at, row, matcher) in enumerate(matched):
            if matcher.is_error():
                refused[at] = GrammarRefused(f"the grammar cannot go on: {first_words(matcher.get_error())}")
            elif row.bans_eos and (bits[index] & ~self._ends).any():  # where only an end fits, the grammar wins
                bits[index] &= ~self._ends
        return Masks([at for at, _, _ in matched], bits, refused)

    def _wish(self, text: str) -> Future[LLMatcher]:
        known = self._known.get(text)
        if known is None:
            self._known[text] = known = Future()
            self._wanted.put((text, known))
            self._characters += len(text)
            self._forget()
        self._known.move_to_end(text)
        return known

    def _forget(self) -> None:
        """The longest unused, as long as there are too many; what is compiled is waited for."""
        while len(self._known) > KEPT or self._characters > KEPT_CHARACTERS:
            text, known = next(iter(self._known.items()))
            if not known.done():
                return
            del self._known[text]
            self._characters -= len(text)

    def _start(self) -> None:
        """The thread ends with this object, to which it has no reference."""
        before = threading.stack_size(STACK_BYTES)
        try:
            threading.Thread(target=_compile, args=(self._tokens, self._wanted), name="grammars", daemon=True).start()
        finally:
            threading.stack_size(before)
        weakref.finalize(self, self._wanted.put, None)


def _compile(tokens: LLTokenizer, wanted: SimpleQueue[tuple[str, Future[Any]] | None]) -> None:
    with suppress(OSError):  # steps first: on Linux, of this thread alone
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
    while (wish := wanted.get()) is not None:
        text, future = wish
        try:
            future.set_result(compiled(tokens, text))
        except Exception as error:  # noqa: BLE001  raised where it is waited for
            future.set_exception(error)


def _bits_of(ids: Rows[int], words: int) -> NDArray[np.uint32]:
    bits = np.zeros(words, dtype=np.uint32)
    for token in ids:
        bits[token // 32] |= np.uint32(1 << token % 32)
    return bits
