"""CannedReply: what a canned adapter says at one time: text, calls of tools, or both.

Knows no queue.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lorapool.shared.tools import ToolCall, ToolCallDelta, call_id


@dataclass(frozen=True, slots=True)
class CannedCall:
    """A call of ``tool``, as an answer or as part of one."""

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


Reply = str | CannedCall | Sequence[str | CannedCall]


class CannedReply(NamedTuple):
    """``pieces``: the calls again, as a stream brings them."""

    text: str
    calls: tuple[ToolCall, ...] = ()
    pieces: tuple[ToolCallDelta, ...] = ()

    @classmethod
    def of(cls, reply: Reply, job_id: str) -> CannedReply:
        """Of whatever a test gives."""
        parts = [reply] if isinstance(reply, str | CannedCall) else list(reply)
        said = (part for part in parts if isinstance(part, CannedCall))
        calls = tuple(
            ToolCall(id=call_id(job_id, index), name=call.tool, arguments=json.dumps(dict(call.arguments)))
            for index, call in enumerate(said)
        )
        pieces = (piece for index, call in enumerate(calls) for piece in _pieces(index, call))
        return cls("".join(part for part in parts if isinstance(part, str)), calls, tuple(pieces))


def _pieces(index: int, call: ToolCall) -> list[ToolCallDelta]:
    """Its id and name, then the arguments in two."""
    half = len(call.arguments) // 2
    told = (call.arguments[:half], call.arguments[half:])
    first = ToolCallDelta(index=index, id=call.id, name=call.name)
    return [first, *(ToolCallDelta(index=index, arguments=part) for part in told)]
