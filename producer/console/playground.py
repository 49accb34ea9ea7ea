"""Playground: one prompt to several adapters, their answers side by side as they are written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from sse_starlette import ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response

from lorapool.producer.client.handle import JobHandle
from lorapool.producer.console.figures import clean, span
from lorapool.producer.console.form import Form, asked, posted
from lorapool.shared.errors import InvalidRequest, LorapoolError
from lorapool.shared.job import BASE_REF
from lorapool.shared.tasks import cancel_and_wait

if TYPE_CHECKING:
    from lorapool.producer.console.desk import Desk

MOST, MOST_NAMES, MOST_TOKENS, GIVE_UP_S = 4, 20, 4096, 600.0


async def page(desk: Desk, request: Request) -> Response:
    """An empty one, but for adapters that were named."""
    names = asked(request).getlist("adapter")[:MOST]
    return desk.pages.page(request, "playground.html", **_filled(names), answers=None)


def _filled(names: list[str], prompt: str = "") -> dict[str, Any]:
    return {"adapters": [*names, *[""] * (MOST - len(names))], "prompt": prompt, "most": MOST}


async def names(desk: Desk, request: Request) -> Response:
    """Adapters and aliases that have what was typed, a few."""
    wanted = next((text for text in asked(request).getlist("adapter") if text.strip()), "").strip().casefold()
    known = {*(await desk.client.adapters.aliases()), *await desk.client.adapters.refs(), BASE_REF}
    found = sorted(name for name in known if wanted in name.casefold())[:MOST_NAMES]
    return desk.pages.page(request, "parts/names.html", names=found)


async def ask(desk: Desk, request: Request) -> Response:
    """Submit to each; the answers' places, to be filled by ``stream``."""
    form = await posted(request)
    chosen = [name.strip() for name in form.getlist("adapter") if name.strip()][:MOST]
    if not chosen:
        raise InvalidRequest("adapter = '': expected one to four refs, aliases or ids; _base is the base model")
    items = [{"adapter": None if name == BASE_REF else name, **_request(form, request)} for name in chosen]
    outcomes = await desk.client.submit_many(items)
    answers = list(zip(chosen, outcomes, strict=True))
    template = "parts/answers.html" if request.headers.get("hx-request") else "playground.html"
    return desk.pages.page(request, template, answers=_places(answers), **_filled(chosen, form.text("prompt")))


def _request(form: Form, request: Request) -> dict[str, Any]:
    prompt = form.get("prompt", "")
    whole = {name: form.whole(name) for name in ("max_new_tokens", "seed")}
    numbers = {**whole, "temperature": form.real("temperature"), "top_p": form.real("top_p")}
    if (whole["max_new_tokens"] or 0) > MOST_TOKENS:
        raise InvalidRequest(f"max_new_tokens = {whole['max_new_tokens']}: expected at most {MOST_TOKENS} here")
    asked_for = {"prompt": prompt} if form.text("raw") else {"messages": [{"role": "user", "content": prompt}]}
    params = {name: value for name, value in numbers.items() if value is not None}
    return {**asked_for, "agent": f"console-{request.state.who}"[:128], "stream": True, **params}


def _places(answers: list[tuple[str, JobHandle | LorapoolError]]) -> list[dict[str, str]]:
    return [
        {"name": name, "job": outcome.id, "error": ""}
        if isinstance(outcome, JobHandle)
        else {"name": name, "job": "", "error": str(outcome)}
        for name, outcome in answers
    ]


async def stream(desk: Desk, request: Request) -> Response:
    """What these jobs say, as it comes, each piece with its job."""
    handles = [desk.client.get(job) for job in asked(request).getlist("job")[:MOST]]
    if not handles:
        raise InvalidRequest("job = '': expected ids of jobs")
    return desk.streams.answer(_merged(handles))


async def _merged(handles: list[JobHandle]) -> AsyncGenerator[ServerSentEvent, None]:
    said: asyncio.Queue[ServerSentEvent] = asyncio.Queue(maxsize=256)
    tasks = [asyncio.create_task(_tell(handle, said)) for handle in handles]
    try:
        while not said.empty() or not all(task.done() for task in tasks):
            try:
                yield await asyncio.wait_for(said.get(), 0.5)
            except TimeoutError:
                continue
        yield ServerSentEvent("", event="over")
    finally:
        await cancel_and_wait(*tasks)


async def _tell(handle: JobHandle, said: asyncio.Queue[ServerSentEvent]) -> None:
    """Its text, then its figures, or why there is none."""
    try:
        async for delta in handle.stream(GIVE_UP_S):
            await said.put(_event("delta", handle, text=clean(delta.text)))
        result = await handle.result(GIVE_UP_S)
        usage, timings = result.usage, result.timings
        told = f"{usage.completion_tokens} tokens in {span(timings.total_ms)}, waited {span(timings.queued_ms)}"
        await said.put(_event("end", handle, said=f"{result.adapter} · {told} · {result.finish_reason}"))
    except LorapoolError as error:
        await said.put(_event("end", handle, said=clean(error), failed=True))


def _event(kind: str, handle: JobHandle, **data: Any) -> ServerSentEvent:
    return ServerSentEvent(json.dumps({"job": handle.id, **data}), event=kind)


async def stop(desk: Desk, request: Request) -> Response:
    """Cancel these jobs: the answers of this page, of which their reader has seen enough."""
    for job in (await posted(request)).getlist("job")[:MOST]:
        await desk.client.get(job).cancel()
    return Response(status_code=204)
