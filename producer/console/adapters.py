"""Adapters: every version that is registered, a page at a time; one of them with all that is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from starlette.requests import Request

from lorapool.producer.console.act import Act, Done
from lorapool.producer.console.figures import count, share
from lorapool.producer.console.form import Form, asked
from lorapool.producer.console.live import Context, LivePage
from lorapool.producer.console.workers import MOST_SHOWN
from lorapool.shared.catalog.adapter_record import BASE_RECORD, AdapterRecord
from lorapool.shared.errors import UnknownAdapter
from lorapool.shared.job import BASE_REF
from lorapool.shared.queue.onlooker import RefDepth
from lorapool.shared.queue.protocol import Limits

if TYPE_CHECKING:
    from lorapool.producer.client.client import Client
    from lorapool.producer.console.desk import Desk

PAGE_SIZE, MOST_VERSIONS, MOST_WAITING = 50, 20, 25
Numbers = Mapping[str, int | float]
_ENDS = ("succeeded", "failed", "cancelled", "expired")


class AdapterRow(NamedTuple):
    """A version beside its figures; ``workers`` have it on their device."""

    record: AdapterRecord
    depth: RefDepth
    figures: Figures
    workers: tuple[str, ...]


class Figures(NamedTuple):
    """What follows from counters; None where nothing does."""

    jobs: float
    ended: float
    failed_share: float | None
    tokens: float
    hit_rate: float | None
    wait_ms: float | None
    total_ms: float | None
    loads: float


async def list_look(desk: Desk, request: Request) -> Context:
    """A page of those whose ref, or alias, has what is searched for: the refs are one small list, all else is read for
    the page alone."""
    form = asked(request)
    query, start = form.text("q")[:128], form.whole("from") or 0
    refs = await _found(desk.client, query)
    start = min(start, max(0, len(refs) - 1)) // PAGE_SIZE * PAGE_SIZE
    rows = await rows_of(desk.client, refs[start : start + PAGE_SIZE])
    return {"rows": rows, "total": len(refs), "start": start, "most": PAGE_SIZE, "query": query}


async def _found(client: Client, query: str) -> list[str]:
    refs, wanted = sorted([BASE_REF, *await client.adapters.refs()]), query.casefold()
    if not wanted:
        return refs
    named = {ref for alias, ref in (await client.adapters.aliases()).items() if wanted in alias}
    return [ref for ref in refs if wanted in ref.casefold() or ref in named]


async def rows_of(client: Client, refs: Sequence[str]) -> list[AdapterRow]:
    """Each with depth, counters and residency; the number of round trips does not depend on how many there are."""
    records = {BASE_REF: BASE_RECORD} | {record.ref: record for record in await client.adapters.some(refs)}
    depths, counted = await client.onlooker.depths(refs), await client.stats_of(refs)
    holders = await residency(client)
    numbers = dict(zip(refs, counted, strict=True))
    return [
        AdapterRow(records[ref], depths[ref], figures(numbers[ref]), holders.get(ref, ()))
        for ref in refs
        if ref in records
    ]


async def residency(client: Client) -> dict[str, tuple[str, ...]]:
    """Ref → the workers that hold it on their device, of the first hundred."""
    holders: dict[str, tuple[str, ...]] = {}
    for beat in await client.workers_of((await client.worker_names())[:MOST_SHOWN]):
        for ref in str(beat.get("resident", "")).split():
            holders[ref] = (*holders.get(ref, ()), beat["worker"])
    return holders


def figures(counted: Numbers) -> Figures:
    """Rates and means of one adapter's counters."""
    of = {name: counted.get(name, 0) for name in (*_ENDS, "slot_hits", "slot_misses", "queued_ms", "total_ms")}
    ended, settled = sum(of[name] for name in _ENDS), of["slot_hits"] + of["slot_misses"]
    return Figures(
        jobs=counted.get("submitted", 0),
        ended=ended,
        failed_share=share(of["failed"] + of["expired"], ended),
        tokens=counted.get("completion_tokens", 0),
        hit_rate=share(of["slot_hits"], settled),
        wait_ms=share(of["queued_ms"], settled),
        total_ms=share(of["total_ms"], ended),
        loads=counted.get("loads", 0),
    )


async def one_look(desk: Desk, request: Request) -> Context:
    """One version; beside it the others of its id, as a canary is watched."""
    client, name = desk.client, request.path_params["name"]
    record = await client.adapters.get(name)
    ref = record.ref
    siblings = [each for each in await client.adapters.refs() if each.partition("@")[0] == record.id]
    rows = await rows_of(client, list(dict.fromkeys([ref, *siblings[-MOST_VERSIONS:]])))
    [counted] = await client.stats_of([ref])
    return {
        "record": record,
        "row": next(row for row in rows if row.record.ref == ref) if rows else None,
        "versions": [row for row in rows if row.record.ref != BASE_REF],
        "counted": {name: value for name, value in counted.items() if value},
        "waiting": await client.onlooker.waiting(ref, MOST_WAITING),
        "limits": await _limits(client, ref),
    }


async def _limits(client: Client, ref: str) -> Limits | None:
    """None of one that takes no jobs yet."""
    try:
        return await client.upkeep.limits(ref)
    except UnknownAdapter:
        return None


# -- acts


async def _pause(desk: Desk, request: Request, _: Form) -> Done:
    ref = await desk.client.upkeep.pause(request.path_params["name"])
    return Done(ref, f"{ref} is paused: its jobs wait", f"/adapters/{ref}")


async def _resume(desk: Desk, request: Request, _: Form) -> Done:
    ref = await desk.client.upkeep.resume(request.path_params["name"])
    return Done(ref, f"{ref} is open again", f"/adapters/{ref}")


async def _purge(desk: Desk, request: Request, _: Form) -> Done:
    ref = await desk.client.adapters.ref(request.path_params["name"])
    gone = await desk.client.upkeep.purge_waiting(ref)
    return Done(ref, f"{count(gone)} waiting jobs of {ref} cancelled", f"/adapters/{ref}")


LIST = LivePage("/adapters", "adapters.html", {"adapters": "parts/adapters.html"}, list_look, every_s=4.0)
ONE = LivePage(
    "/adapters/{name}",
    "adapter.html",
    {"state": "parts/adapter_state.html", "versions": "parts/versions.html", "waiting": "parts/waiting.html"},
    one_look,
    every_s=4.0,
)
ACTS = (
    Act(
        "/adapters/{name}/pause",
        "paused",
        _pause,
        title="Pause this adapter?",
        warning="Its jobs are still taken, and wait until it is resumed. Those that run go on.",
        button="Pause",
    ),
    Act("/adapters/{name}/resume", "resumed", _resume),
    Act(
        "/adapters/{name}/purge",
        "purged",
        _purge,
        title="Cancel all that waits for this adapter?",
        warning="Every waiting job of it ends as cancelled; that cannot be taken back. Those that run go on.",
        button="Cancel waiting jobs",
    ),
)
