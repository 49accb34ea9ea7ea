"""Jobs: found by id; those that run, and of an adapter those that wait; one with its timeline and why it waits.

A job's request is not shown: prompts are their senders' own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from lorapool.producer.client.record import Record, state_of
from lorapool.producer.console.act import Act, Done
from lorapool.producer.console.figures import clean
from lorapool.producer.console.form import Form, asked
from lorapool.producer.console.live import Context, LivePage
from lorapool.producer.console.timeline import timeline
from lorapool.shared.errors import LorapoolError
from lorapool.shared.queue.onlooker import SeenJob

if TYPE_CHECKING:
    from lorapool.producer.console.desk import Desk

MOST_LISTED, MOST_TEXT = 100, 20_000


async def list_look(desk: Desk, request: Request) -> Context:
    """What runs, or waits, or may not start yet: of an adapter, of an agent, or of all."""
    form, onlooker = asked(request), desk.client.onlooker
    adapter, agent = form.text("adapter")[:257], form.text("agent")[:128]
    trouble, ref = "", ""
    if adapter:
        try:
            ref = await desk.client.adapters.ref(adapter)
        except LorapoolError as error:
            trouble = str(error)
    running = _of(await onlooker.running(500 if ref or agent else MOST_LISTED), ref, agent)
    waiting = _of(await onlooker.waiting(ref, MOST_LISTED), "", agent) if ref else []
    delayed = _of(await onlooker.delayed(MOST_LISTED), ref, agent)
    glance = await onlooker.glance()
    return {
        "running": running[:MOST_LISTED],
        "waiting": waiting,
        "delayed": delayed,
        "adapter": adapter,
        "ref": ref,
        "agent": agent,
        "trouble": trouble,
        "glance": glance,
    }


def _of(jobs: list[SeenJob], ref: str, agent: str) -> list[SeenJob]:
    return [job for job in jobs if ref in {"", job.ref} and agent in {"", job.agent}]


async def find(desk: Desk, request: Request) -> Response:
    """To the job of the id that was typed."""
    return desk.pages.onward(request, f"/jobs/{quote(asked(request).text('id')[:300], safe='')}")


async def one_look(desk: Desk, request: Request) -> Context:
    """One job. Raises UnknownJob, ResultExpired."""
    handle = desk.client.get(request.path_params["id"])
    record = await handle.record()
    explained = await handle.explain()
    fields = {name: value for name, value in record.items() if isinstance(value, str)}
    now_ms = float(explained.facts.get("now_ms", 0))
    return {
        "id": handle.id,
        "job": fields,
        "state": state_of(record).value,
        "ended": state_of(record).terminal,
        "explained": explained,
        "timeline": timeline(record, now_ms),
        "text": _text(record),
        "cut": len(_text(record)) > MOST_TEXT,
        "most": MOST_TEXT,
    }


def _text(record: Record) -> str:
    text = record.get("text", "")
    return clean(text.decode(errors="replace") if isinstance(text, bytes) else text)


async def _cancel(desk: Desk, request: Request, _: Form) -> Done:
    handle = desk.client.get(request.path_params["id"])
    state = await handle.cancel()
    said = f"job {handle.id} is asked to stop" if state == "running" else f"job {handle.id} is {state}"
    return Done(handle.id, said, f"/jobs/{handle.id}")


LIST = LivePage("/jobs", "jobs.html", {"jobs": "parts/jobs.html"}, list_look)
ONE = LivePage("/jobs/{id}", "job.html", {"job": "parts/job.html"}, one_look, every_s=1.0)
ACTS = (
    Act(
        "/jobs/{id}/cancel",
        "cancelled",
        _cancel,
        title="Cancel this job?",
        warning="Who waits for it is told that it was cancelled. It cannot be taken back.",
        button="Cancel the job",
    ),
)
