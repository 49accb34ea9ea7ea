"""Logs: structlog for the whole product, readable on a terminal, one JSON object a line otherwise.

Callers bind what a line is about (job, agent, adapter, worker). Knows nothing of what is logged, except that
anything that looks like a URL with a password loses the password.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from lorapool.shared.redaction import redact


def configure(level: str = "info", json: bool | None = None) -> None:
    """Set up logging once, to stderr. ``json`` None: JSON unless stderr is a terminal."""
    as_json = not sys.stderr.isatty() if json is None else json
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json),
            structlog.processors.StackInfoRenderer(),
            redact_values,
            *_renderers(as_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(_Stderr()),
        cache_logger_on_first_use=True,
    )


class _Stderr(io.StringIO):
    """Whatever stderr is when a line is written: a logger may outlive the stream it began with."""

    def write(self, text: str, /) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def redact_values(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: no password inside any URL of the event."""
    for name, value in event.items():
        if isinstance(value, str) and "://" in value:
            event[name] = redact(value)
    return event


def _renderers(as_json: bool) -> list[Any]:
    if as_json:
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
