"""ResponseTemplate: how a tokenizer says that its model writes calls of tools, and their parser where that is not JSON
between two marks.

Of transformers' response templates the calls alone are heeded: all other text is content. What is parsed and cast there
is theirs (transformers.utils.chat_parsing); where a call begins and ends is found here, a piece of text at a time. No
torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from transformers.utils.chat_parsing import parse_response
from transformers.utils.chat_parsing.response_templates import ResponseTemplateField, load_response_template

from lorapool.shared.errors import BaseModelError
from lorapool.shared.tools import ToolCall
from lorapool.worker.text.call_syntax import CallSyntax
from lorapool.worker.text.tool_calls import Parsed, Tally

_PLAIN_PATTERN = re.compile(r"(?:\\[^A-Za-z0-9]|[^\\.^$*+?{}\[\]|()])+")
_NEVER = "\0"  # where a prompt ends: none is given to the parser
_ANCHORS = ("open", "open_pattern", "close", "close_pattern")


class ResponseTemplate:
    """``syntax``: where calls are JSON between two marks, None where they are anything else."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        given = spec["fields"]["tool_calls"]
        self.spec = {"version": spec.get("version", 1), "start_anchor": _NEVER, "fields": {"tool_calls": given}}
        self.field: ResponseTemplateField = load_response_template(self.spec).fields["tool_calls"]
        self.syntax = _syntax_of(given)

    @classmethod
    def of(cls, spec: Any) -> ResponseTemplate | None:
        """None where there is none, or none that tells of calls. Raises BaseModelError for one that does not work."""
        if not isinstance(spec, Mapping) or "tool_calls" not in (spec.get("fields") or {}):
            return None
        try:
            return cls(spec)
        except (ValueError, TypeError, KeyError) as error:
            raise BaseModelError(f"the tokenizer's response_template does not work: {error}") from error

    def names(self, text: str) -> bool:
        """Whether that is part of a mark."""
        given = self.spec["fields"]["tool_calls"]
        return any(text in str(given.get(anchor, "")).replace("\\", "") for anchor in _ANCHORS)


class TemplateCalls:
    """Calls as a response template describes them, each given once it is whole. Implements CallParser."""

    def __init__(
        self, template: ResponseTemplate, tools: Sequence[Mapping[str, Any]], names: Collection[str], tally: Tally
    ) -> None:
        self._template, self._tools, self._names, self._tally = template, tools, frozenset(names), tally
        self._text = ""  # not yet decided
        self._raw: list[str] | None = None  # a call that has begun

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        return self._tally.calls

    def push(self, text: str) -> Parsed:
        """Take more of the answer."""
        self._text += text
        while self._found(last=False):
            pass
        return self._tally.take()

    def finish(self) -> Parsed:
        """Nothing more comes."""
        while self._found(last=True):
            pass
        if self._raw is not None and self._template.field.close_re is None:
            self._end()
        self._tally.show("".join([*(self._raw or ()), self._text]))
        self._text, self._raw = "", None
        return self._tally.take()

    def _found(self, *, last: bool) -> bool:
        """Take what is certain; whether a mark was found in it."""
        field = self._template.field
        opens = self._raw is None
        pattern, literals = (field.open_re, field.open_literals) if opens else (field.close_re, field.close_literals)
        searched = pattern is not None and not (opens and self._tally.is_full)
        match = pattern.search(self._text, partial=not last) if searched else None
        self._take(len(self._text) if match is None else match.start())
        if match is None or match.partial:
            return False
        size: int = match.end() - match.start()
        if not last and literals is None and size == len(self._text):
            return False  # more of the pattern may come
        self._mark(size)
        return size > 0

    def _take(self, size: int) -> None:
        taken, self._text = self._text[:size], self._text[size:]
        if self._raw is None:
            self._tally.show(taken)
        else:
            self._raw.append(taken)

    def _mark(self, size: int) -> None:
        mark, self._text = self._text[:size], self._text[size:]
        if self._raw is None:
            self._raw = [mark]
            return
        self._raw.append(mark)
        self._end()

    def _end(self) -> None:
        """A call is whole, or turns out to be none."""
        raw, self._raw = "".join(self._raw or ()), None
        calls = self._parsed(raw)
        if not calls or any(name not in self._names for name, _ in calls):
            self._tally.show(raw)
            return
        for name, arguments in calls:
            self._tally.begin(name)
            self._tally.add(arguments)

    def _parsed(self, raw: str) -> list[tuple[str, str]]:
        try:
            message = parse_response(raw, self._template.spec, prefix="", tools=[dict(tool) for tool in self._tools])
            found = message.get("tool_calls", [])
            calls = [call["function"] for call in (found if isinstance(found, list) else [found])]
            return [(call["name"], _text_of(call.get("arguments") or {})) for call in calls]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return []


def _text_of(arguments: Any) -> str:
    if not isinstance(arguments, dict):
        raise TypeError("arguments are an object")
    return json.dumps(arguments, ensure_ascii=False)


def _syntax_of(given: Mapping[str, Any]) -> CallSyntax | None:
    opening, closing = _literal(given, "open"), _literal(given, "close")
    keys = _keys(given.get("transform"))
    if given.get("content") != "json" or given.get("content_args") or given.get("transform_each"):
        return None
    if opening is None or closing is None or keys is None:
        return None
    return CallSyntax(opening, closing, name=keys[0], arguments=keys[1])


def _literal(given: Mapping[str, Any], anchor: str) -> str | None:
    """The one text that the anchor stands for, blanks before it aside."""
    if isinstance(text := given.get(anchor), str):
        return text
    pattern = str(given.get(f"{anchor}_pattern", "")).removeprefix(r"\s*")
    return re.sub(r"\\(.)", r"\1", pattern) if _PLAIN_PATTERN.fullmatch(pattern) else None


def _keys(transform: Any) -> tuple[str, str] | None:
    function = transform.get("function") if isinstance(transform, Mapping) else None
    if function == "{content}":
        return "name", "arguments"
    if not isinstance(function, Mapping):
        return None
    places = [re.fullmatch(r"\{content\.(\w+)\}", str(function.get(key))) for key in ("name", "arguments")]
    return None if None in places else (places[0][1], places[1][1])  # type: ignore[index]
