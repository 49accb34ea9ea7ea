"""A streamed job's answer as it comes, each piece once, across reconnects and retries.

A retried job draws the same tokens again (its seed is fixed at enqueue), so a new attempt's text and calls of tools are
compared with what was handed out and skipped as far as they agree; only if they differ does a delta with ``restart``
say so. Pure: knows the entries that the queue returns, no connection.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from lorapool.shared.job import NO_MORE, More, Result
from lorapool.shared.queue.protocol import StreamItem
from lorapool.shared.tools import ToolCall, ToolCallDelta, joined


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of a completion.

    ``offset`` is the index of the first of ``token_ids`` within the completion. ``restart`` is True when all that came
    before is void: a later attempt produced another answer, and this delta begins it anew. ``attempt`` counts on when a
    job that the server lost is submitted again. ``more``: log probabilities, one a token, and what calls of tools grew
    by.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    attempt: int = 1
    offset: int = 0
    restart: bool = False
    more: More = NO_MORE


class Splicer:
    """Makes one text that never repeats out of the deltas of several attempts; and of what they tell of its tokens, and
    of its calls of tools, each piece once."""

    def __init__(self) -> None:
        self._before = 0  # attempts of earlier submissions
        self._attempt = 0
        self._out = _Said()  # handed out
        self._tokens = 0  # handed out
        self._seen: _Seen | None = None  # of an attempt that may repeat what was handed out

    @property
    def text(self) -> str:
        """Handed out."""
        return self._out.text

    def take(self, item: StreamItem) -> TextDelta | None:
        """What is new in the next entry of the job's token stream, or None."""
        if item.kind == "delta":
            return self.delta(self._before + item.attempt, item.offset, item.text, item.token_ids, item.more)
        if item.kind == "restart" and self._before + item.attempt >= self._attempt:
            self.restart(self._before + item.attempt)
        return None

    def anew(self) -> None:
        """The job was submitted again: its attempts begin at one, and are counted on here."""
        self._before = self._attempt

    def restart(self, attempt: int) -> None:
        """A new attempt begins at its first token; or the same, whose number was not burnt, once more."""
        self._attempt = attempt
        self._seen = _Seen() if self._tokens or self._out else None

    def delta(
        self, attempt: int, offset: int, text: str, token_ids: tuple[int, ...], more: More = NO_MORE
    ) -> TextDelta | None:
        """What of this delta is new, or None."""
        if attempt < self._attempt:
            return None
        if attempt > self._attempt:  # the entry that says so was trimmed
            self.restart(attempt)
        brought = TextDelta(text, token_ids, attempt, offset, more=more)
        if self._seen is None:
            return self._hand_out(brought)
        self._seen.add(brought)
        if not self._seen.said.agrees(self._out):
            return self._begin_anew(self._seen.whole)
        fresh = self._fresh(brought, self._seen.said)
        if self._seen.said.covers(self._out) and self._seen.end >= self._tokens:
            self._seen = None
        return self._hand_out(fresh)

    def rest(self, result: Result) -> TextDelta | None:
        """The end, from the stored result: what no delta brought."""
        more = More(result.token_logprobs or (), tuple(_whole(at, call) for at, call in enumerate(result.tool_calls)))
        stored = TextDelta(result.text, result.token_ids, max(1, self._attempt), more=more)
        said = _Said()
        said.add(stored)
        if not (said.agrees(self._out) and said.covers(self._out)):
            return self._begin_anew(stored)
        return self._hand_out(self._fresh(stored, said))

    def _begin_anew(self, whole: TextDelta) -> TextDelta | None:
        """What was handed out is void."""
        self._out, self._seen, self._tokens = _Said(), None, 0
        return self._hand_out(replace(whole, restart=True))

    def _fresh(self, brought: TextDelta, said: _Said) -> TextDelta:
        """Of what an attempt brought last, and of all that it ``said``, what was not handed out."""
        known = min(max(0, self._tokens - brought.offset), len(brought.token_ids))
        more = More(brought.more.logprobs[known:], said.calls_beyond(self._out))
        return TextDelta(
            said.text[len(self._out.text) :],
            brought.token_ids[known:],
            brought.attempt,
            max(brought.offset, self._tokens),
            more=more,
        )

    def _hand_out(self, delta: TextDelta) -> TextDelta | None:
        self._out.add(delta)
        self._tokens = max(self._tokens, delta.offset + len(delta.token_ids))
        return delta if delta.text or delta.token_ids or delta.restart or any(delta.more) else None


@dataclass(slots=True)
class _Said:
    """Text and calls of tools, by index."""

    text: str = ""
    calls: dict[int, ToolCallDelta] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.text or self.calls)

    def add(self, delta: TextDelta) -> None:
        self.text += delta.text
        for call in joined([*self.calls.values(), *delta.more.tool_calls]):
            self.calls[call.index] = call

    def agrees(self, other: _Said) -> bool:
        """As far as both go: neither says another thing."""
        return _agree(self.text, other.text) and all(
            (call.id, call.name) == (theirs.id, theirs.name) and _agree(call.arguments, theirs.arguments)
            for index, call in self.calls.items()
            if (theirs := other.calls.get(index)) is not None
        )

    def covers(self, other: _Said) -> bool:
        """It goes at least as far, given that they agree."""
        return len(self.text) >= len(other.text) and all(
            index in self.calls and len(self.calls[index].arguments) >= len(theirs.arguments)
            for index, theirs in other.calls.items()
        )

    def calls_beyond(self, other: _Said) -> tuple[ToolCallDelta, ...]:
        """What of the calls the other has not, given that they agree."""
        beyond = []
        for index, call in self.calls.items():
            known = other.calls.get(index)
            if known is None:
                beyond.append(call)
            elif rest := call.arguments[len(known.arguments) :]:
                beyond.append(ToolCallDelta(index=index, arguments=rest))
        return tuple(beyond)


class _Seen:
    """What an attempt brought, from its first token that is there."""

    def __init__(self) -> None:
        self.said = _Said()
        self._whole = TextDelta("")

    def add(self, delta: TextDelta) -> None:
        self.said.add(delta)
        last, first = self._whole, not self._whole.token_ids
        self._whole = replace(
            delta,
            token_ids=last.token_ids + delta.token_ids,
            offset=delta.offset if first else last.offset,
            more=More(last.more.logprobs + delta.more.logprobs),
        )

    @property
    def end(self) -> int:
        """Where its tokens end."""
        return self._whole.offset + len(self._whole.token_ids)

    @property
    def whole(self) -> TextDelta:
        """As one delta."""
        more = More(self._whole.more.logprobs, tuple(self.said.calls.values()))
        return replace(self._whole, text=self.said.text, more=more)


def _agree(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _whole(index: int, call: ToolCall) -> ToolCallDelta:
    return ToolCallDelta(index=index, id=call.id, name=call.name, arguments=call.arguments)
