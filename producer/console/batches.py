"""Batches: files of requests, fed into the queue at low priority: how far each is, who feeds it, and calling it off."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from starlette.requests import Request

from lorapool.producer.console.act import Act, Done
from lorapool.producer.console.form import Form, asked
from lorapool.producer.console.live import Context, LivePage
from lorapool.shared.batches.batch_record import BatchRecord

if TYPE_CHECKING:
    from lorapool.producer.console.desk import Desk

PAGE_SIZE = 50


class BatchRow(NamedTuple):
    """``left_ms``: at the pace so far, None where there is none yet."""

    batch: BatchRecord
    done: int
    left_ms: float | None


async def look(desk: Desk, request: Request) -> Context:
    """Newest first, of an agent or of all."""
    form, book = asked(request), desk.client.batches
    agent, after = form.text("agent")[:128], form.text("after")[:128]
    records, more = await book.page(agent or None, after=after or None, limit=PAGE_SIZE)
    now_ms = (await desk.client.onlooker.glance()).now_ms
    return {
        "rows": [row(record, now_ms) for record in records],
        "more": more,
        "agent": agent,
        "after": after,
        "feeders": await book.feeders(),
    }


def row(batch: BatchRecord, now_ms: float) -> BatchRow:
    """One, with how long it will go on."""
    done, begun = batch.completed + batch.failed, batch.in_progress_ms
    if batch.status.terminal or not done or not begun:
        return BatchRow(batch, done, None)
    return BatchRow(batch, done, max(0.0, (now_ms - begun) / done * (batch.total - done)))


async def _cancel(desk: Desk, request: Request, _: Form) -> Done:
    batch = request.path_params["id"]
    status = await desk.client.batches.cancel(batch)
    return Done(batch, f"batch {batch} is {status.value}", "/batches")


PAGE = LivePage("/batches", "batches.html", {"batches": "parts/batches.html"}, look, every_s=3.0)
ACTS = (
    Act(
        "/batches/{id}/cancel",
        "cancelled batch",
        _cancel,
        title="Cancel this batch?",
        warning="Lines that have been answered are kept, in its output file. The others are not asked any more.",
        button="Cancel the batch",
    ),
)
