"""Open files: a connection is one, and a process begins with room for some 1,000 on most systems."""

from __future__ import annotations

from contextlib import suppress

import structlog

SPARE = 256  # files that are no client's connection


def make_room(connections: int) -> None:
    """Raise this process's limit, as far as it may, to what so many connections need; where that is too little, a
    warning is logged."""
    with suppress(ModuleNotFoundError):  # Windows has no such limit
        _raise_to(connections + SPARE)


def _raise_to(wanted: int) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _within(wanted, soft):
        return
    raised = wanted if _within(wanted, hard) else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    if raised < wanted:
        structlog.get_logger("lorapool").warning(
            "few_open_files", limit=raised, wanted=wanted, remedy="raise `ulimit -Hn`, or lower --max-connections"
        )


def _within(wanted: int, limit: int) -> bool:
    import resource

    return limit == resource.RLIM_INFINITY or wanted <= limit
