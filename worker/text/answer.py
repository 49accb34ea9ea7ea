"""Answer: the text of an answer, as its token ids come, and the calls of tools in it.

Three things hold text back: half a UTF-8 character (the detokenizer's work), what may be the beginning of a stop
string (HeldText), and what may be a call (ToolCalls). A stop string ends the answer here: an engine knows tokens only,
so that no two engines differ in this. Knows no job and no batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from lorapool.shared.tools import ToolCall, ToolCallDelta
from lorapool.worker.text.held_text import HeldText
from lorapool.worker.text.tool_calls import CallParser, Parsed


class Detokenizer(Protocol):
    """Turns token ids into text, a piece at a time, never giving half a character."""

    def push(self, token_id: int) -> str:
        """Return the text that became certain with this token; often one piece, sometimes nothing."""
        ...


class Added(NamedTuple):
    """What new tokens added: ``tokens`` of them belong to the answer; all, unless a stop string became whole."""

    tokens: int
    text: str
    calls: tuple[ToolCallDelta, ...] = ()


class Answer:
    """``text``: what may be shown so far; after the end, the whole answer, cut before a stop string, without the calls
    that ``parser`` finds in it."""

    def __init__(self, detokenizer: Detokenizer, stop: tuple[str, ...] = (), parser: CallParser | None = None) -> None:
        self._detokenizer, self._held, self._parser = detokenizer, HeldText(stop), parser
        self._content: list[str] = []  # where a parser is
        self._finished = False

    @property
    def text(self) -> str:
        return self._held.visible if self._parser is None else "".join(self._content)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return () if self._parser is None else self._parser.calls

    @property
    def stopped(self) -> bool:
        """A stop string became whole: no token that comes after belongs to the answer."""
        return self._held.stopped

    def push(self, token_ids: Iterable[int], *, last: bool = False) -> Added:
        """Take new tokens; ``last``: no more will come, so that what was held back may be shown."""
        tokens, text = 0, ""
        for token_id in token_ids:
            if self.stopped:
                break
            text += self._held.push(self._detokenizer.push(token_id))
            tokens += 1
        text = text + self._held.flush() if last else text
        if self._parser is None:
            return Added(tokens, text)
        return Added(tokens, *self._parsed(self._parser, text, last or self.stopped))

    def _parsed(self, parser: CallParser, text: str, last: bool) -> Parsed:
        parsed = parser.push(text) if text else Parsed()
        if last and not self._finished:
            self._finished, rest = True, parser.finish()
            parsed = Parsed(parsed.text + rest.text, parsed.calls + rest.calls)
        self._content.append(parsed.text)
        return parsed
