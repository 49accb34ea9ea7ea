"""Workers: each with its device, its batch, its slots, the age of its step, and what ails it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.requests import Request

from lorapool.producer.console.figures import clean, span
from lorapool.producer.console.form import asked
from lorapool.producer.console.live import Context, LivePage
from lorapool.shared.malformed import number

if TYPE_CHECKING:
    from lorapool.producer.console.desk import Desk

MOST_SHOWN = 100
SLOW_STEP_MS = 10_000
QUIET_MS = 10_000


class WorkerRow(NamedTuple):
    """A worker as its last heartbeat has it. ``mean_rows``: of a step, since it started."""

    name: str
    state: str
    device: str
    held: int
    rows: int
    tokens_per_s: float
    mean_rows: float | None
    step_age_ms: float
    age_ms: float
    resident: tuple[str, ...]
    loading: tuple[str, ...]
    on_host: int
    ails: str
    more: Mapping[str, str]


async def look(desk: Desk, request: Request) -> Context:
    """A page of them, by name."""
    names = await desk.client.worker_names()
    start = min(asked(request).whole("from") or 0, max(0, len(names) - 1))
    beats = await desk.client.workers_of(names[start : start + MOST_SHOWN])
    return {"rows": list(map(row, beats)), "total": len(names), "start": start, "most": MOST_SHOWN}


def row(beat: Mapping[str, Any]) -> WorkerRow:
    """One, from what it says of itself."""
    steps, step_rows = number(beat.get("steps")), number(beat.get("step_rows"))
    held, free = int(number(beat.get("held"))), int(number(beat.get("free_rows")))
    return WorkerRow(
        name=beat["worker"],
        state=beat.get("state", "running"),
        device=" ".join(beat[part] for part in ("device", "dtype") if beat.get(part)),
        held=held,
        rows=held + free,
        tokens_per_s=number(beat.get("tokens_per_s")),
        mean_rows=step_rows / steps if steps else None,
        step_age_ms=number(beat.get("step_age_ms")),
        age_ms=number(beat.get("age_ms")),
        resident=_refs(beat, "resident"),
        loading=_refs(beat, "loading"),
        on_host=len(_refs(beat, "on_host")),
        ails=ailment(beat),
        more={name: beat[name] for name in _TOLD if beat.get(name, "") not in {"", "0"}},
    )


def ailment(beat: Mapping[str, Any]) -> str:
    """What ails a worker, in words; empty if nothing does."""
    step_age_ms, age_ms = number(beat.get("step_age_ms")), number(beat.get("age_ms"))
    said = clean(beat.get("ails", ""))[:200]
    slow = f"its step runs for {span(step_age_ms)}" if step_age_ms > SLOW_STEP_MS else ""
    quiet = f"silent for {span(age_ms)}" if age_ms > QUIET_MS else ""
    return "; ".join(filter(None, (said, slow, quiet)))


def _refs(beat: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return tuple(str(beat.get(name, "")).split())


_TOLD = (
    *("host", "pid", "progress", "restarts", "failed_steps", "shrinks", "preemptions", "evictions", "adapter_loads"),
    *("steps", "prefill_tokens", "decode_tokens", "not_here", "judging", "malformed"),
)

PAGE = LivePage("/workers", "workers.html", {"workers": "parts/workers.html"}, look)
