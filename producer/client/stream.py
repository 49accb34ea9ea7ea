"""A streamed job's text as it comes, once each, across reconnects and retries.

A retried job draws the same tokens again (its seed is fixed at enqueue), so a new attempt's text is compared with
what was handed out and skipped as far as it agrees; only if it differs does a delta with ``restart`` say so.
Pure: knows the entries that the queue returns, no connection.
"""

from __future__ import annotations

from dataclasses import dataclass

from lorapool.shared.job import NO_MORE, More
from lorapool.shared.queue.protocol import StreamItem


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of a completion.

    ``offset`` is the index of the first of ``token_ids`` within the completion. ``restart`` is True when all text
    before is void: a later attempt produced other text, and this delta begins it anew. ``attempt`` counts on when a job
    that the server lost is submitted again.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    attempt: int = 1
    offset: int = 0
    restart: bool = False
    more: More = NO_MORE


class Splicer:
    """Makes one text that never repeats out of the deltas of several attempts."""

    def __init__(self) -> None:
        self._before = 0  # attempts of earlier submissions
        self.text = ""  # handed out
        self._tokens = 0  # handed out
        self._attempt = 0
        self._seen = ""  # of the attempt being skipped
        self._skipping = False

    def take(self, item: StreamItem) -> TextDelta | None:
        """What is new in the next entry of the job's token stream, or None."""
        if item.kind == "delta":
            return self.delta(self._before + item.attempt, item.offset, item.text, item.token_ids)
        if item.kind == "restart" and self._before + item.attempt >= self._attempt:
            self.restart(self._before + item.attempt)
        return None

    def anew(self) -> None:
        """The job was submitted again: its attempts begin at one, and are counted on here."""
        self._before = self._attempt

    def restart(self, attempt: int) -> None:
        """A new attempt begins at its first token; or the same, whose number was not burnt, once more."""
        self._attempt, self._seen = attempt, ""
        self._skipping = bool(self.text)

    def delta(self, attempt: int, offset: int, text: str, token_ids: tuple[int, ...]) -> TextDelta | None:
        """What of this delta is new, or None."""
        if attempt < self._attempt:
            return None
        if attempt > self._attempt:  # the entry that says so was trimmed
            self.restart(attempt)
        end = offset + len(token_ids)
        if not self._skipping:
            return self._hand_out(TextDelta(text, token_ids, attempt, offset), end)
        self._seen += text
        if self.text.startswith(self._seen):
            self._skipping = self._seen != self.text
            return None
        self._skipping = False
        if not self._seen.startswith(self.text):
            self.text = ""
            return self._hand_out(TextDelta(self._seen, token_ids, attempt, offset, restart=True), end)
        fresh = token_ids[max(0, self._tokens - offset) :]
        return self._hand_out(TextDelta(self._seen[len(self.text) :], fresh, attempt, end - len(fresh)), end)

    def rest(self, text: str) -> TextDelta | None:
        """The end, from the stored result: what no delta brought."""
        if text == self.text:
            return None
        attempt = max(1, self._attempt)
        if text.startswith(self.text):
            return self._hand_out(TextDelta(text[len(self.text) :], (), attempt, self._tokens), self._tokens)
        self.text = ""
        return self._hand_out(TextDelta(text, (), attempt, 0, restart=True), self._tokens)

    def _hand_out(self, delta: TextDelta, tokens: int) -> TextDelta | None:
        self.text += delta.text
        self._tokens = max(self._tokens, tokens)
        return delta if delta.text or delta.token_ids or delta.restart else None
