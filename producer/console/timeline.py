"""Timeline: a job's stamps as stretches of time, each with what went on in it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from lorapool.shared.malformed import number

WIDTH = 1000  # of the whole, in the drawing's units
Record = Mapping[str, str | bytes]


class Stretch(NamedTuple):
    """``kind`` is its colour; ``left`` and ``width`` its place in the drawing."""

    kind: str
    said: str
    began_ms: float
    took_ms: float
    left: float
    width: float


def timeline(record: Record, now_ms: float) -> list[Stretch]:
    """Delay, wait, load, reading the prompt, writing; up to now for a job that has not ended. Of a job that was tried
    again the stamps are the last attempt's, and all before it is waiting."""
    names = ("submitted", "due", "started", "first_token", "finished")
    at = {name: max(0.0, number(record.get(f"{name}_ms"))) for name in names}
    end = max(at["finished"] or now_ms, at["submitted"])
    begun = min(max(at["started"] or end, at["submitted"]), end)
    due = min(max(at["due"], at["submitted"]), begun)
    loaded = min(begun + number(record.get("load_ms")), at["first_token"] or end, end)
    spoke = max(loaded, min(at["first_token"] or end, end))
    marks = (
        ("delay", "delayed, as was asked", at["submitted"], due),
        ("wait", "waited for a worker", due, begun),
        ("load", "waited for its adapter to be loaded", begun, loaded),
        ("read", "read the prompt, to the first token" if at["first_token"] else "ran", loaded, spoke),
        ("write", "wrote the answer", spoke, end),
    )
    return _placed([mark for mark in marks if mark[3] > mark[2]], at["submitted"], end)


def _placed(marks: list[tuple[str, str, float, float]], begin: float, end: float) -> list[Stretch]:
    scale = WIDTH / max(1.0, end - begin)
    return [
        Stretch(kind, said, began, ended - began, round((began - begin) * scale, 1), round((ended - began) * scale, 1))
        for kind, said, began, ended in marks
    ]
