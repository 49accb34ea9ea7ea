"""batch submit, ls, show, cancel, fetch: files of requests that gateways feed, from the command line."""

from __future__ import annotations

import sys
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from lorapool.producer.batches.batches import Batches
from lorapool.producer.batches.window import window_s, window_text
from lorapool.producer.client.client import Client
from lorapool.producer.commands import options as o
from lorapool.producer.commands.render import Bar, count, document, fields, note, plain, say, table
from lorapool.producer.commands.session import refuse, run
from lorapool.shared.batches.batch_record import BatchRecord, BatchStatus
from lorapool.shared.errors import InvalidRequest

app = typer.Typer(
    help="Have every line of a file asked, whatever dies meanwhile. A lorapool gateway feeds it.", no_args_is_help=True
)
LINES = typer.Argument(metavar="FILE", help="Requests as OpenAI's Batch API has them, one JSON object a line.")
File = Annotated[Path, LINES]
BatchId = Annotated[str, typer.Argument(metavar="BATCH", help="The batch's id, as submit printed it and ls shows it.")]


@app.command()
def submit(
    file: File,
    endpoint: o.Endpoint = None,
    window: o.BatchWindow = "24h",
    agent: o.Agent = "cli",
    wait: o.BatchWait = False,
    files: o.Files = "~/.cache/lorapool/files",
    redis_url: o.RedisUrl = None,
    pool: o.Pool = None,
    as_json: o.Json = False,
) -> None:
    """Hand a file in. Prints the batch's id; with --wait, how it ended.

    lorapool batch submit questions.jsonl --wait
    """
    try:
        seconds = window_s(window)
    except InvalidRequest as error:
        refuse(error, as_json=as_json)

    async def work(client: Client) -> None:
        batches = Batches(client, files)
        batch = await batches.submit(file, endpoint=endpoint, agent=agent, window_s=seconds)
        await _warn(client, files)
        if wait:
            batch = await _followed(batches, batch)
        if as_json:
            document(plain(batch))
        elif wait:
            _show(batch)
        else:
            say(batch.id)
            note(f"see how far it is with: lorapool batch show {batch.id}")
        if wait and batch.status is not BatchStatus.COMPLETED:
            raise typer.Exit(1)

    run(work, redis_url=redis_url, pool=pool, as_json=as_json)


@app.command()
def ls(
    by_agent: o.BatchesOf = None,
    limit: o.Limit = 20,
    redis_url: o.RedisUrl = None,
    pool: o.Pool = None,
    as_json: o.Json = False,
) -> None:
    """List batches, newest first."""

    async def work(client: Client) -> None:
        batches, _ = await client.batches.page(by_agent, limit=limit)
        if as_json:
            document([plain(batch) for batch in batches])
        elif batches:
            columns = ("batch", "agent", "status", "lines", "completed", "failed", "tokens", "made")
            table(columns, map(_row, batches), right=("lines", "completed", "failed", "tokens"))
        else:
            note("no batches: lorapool batch submit FILE")

    run(work, redis_url=redis_url, pool=pool, as_json=as_json)


@app.command()
def show(batch_id: BatchId, redis_url: o.RedisUrl = None, pool: o.Pool = None, as_json: o.Json = False) -> None:
    """Show one batch: how far it is, what it cost so far, what is wrong with its file."""

    async def work(client: Client) -> None:
        batch = await client.batches.get(batch_id)
        if as_json:
            document(plain(batch))
            return
        _show(batch)
        if not batch.status.terminal:
            await _warn(client)

    run(work, redis_url=redis_url, pool=pool, as_json=as_json)


@app.command()
def cancel(batch_id: BatchId, redis_url: o.RedisUrl = None, pool: o.Pool = None, as_json: o.Json = False) -> None:
    """End a batch: what was answered stays, its jobs are cancelled, the rest is listed as cancelled."""

    async def work(client: Client) -> None:
        status = await client.batches.cancel(batch_id)
        if as_json:
            document({"id": batch_id, "status": status.value})
        else:
            say(f"{batch_id} is {status.value}")
        if status not in {BatchStatus.CANCELLING, BatchStatus.CANCELLED}:
            raise typer.Exit(1)

    run(work, redis_url=redis_url, pool=pool, as_json=as_json, act=("cancelled batch", batch_id))


@app.command()
def fetch(
    batch_id: BatchId,
    out: o.BatchOut = None,
    errors: o.BatchErrors = None,
    files: o.Files = "~/.cache/lorapool/files",
    redis_url: o.RedisUrl = None,
    pool: o.Pool = None,
    as_json: o.Json = False,
) -> None:
    """Write a batch's answers to stdout or into files.

    lorapool batch fetch batch_… --out answers.jsonl --errors errors.jsonl
    """

    async def work(client: Client) -> None:
        batch, batches = await client.batches.get(batch_id), Batches(client, files)
        if not batch.status.terminal:
            raise InvalidRequest(f"batch {batch_id} is {batch.status.value}: its answers are there when it has ended")
        written = await _written(batches, batch.output_file, out)
        if errors is not None:
            written += await _written(batches, batch.error_file, errors)
        elif batch.error_file is not None:
            note(f"{count(batch.failed)} lines have errors: read them with --errors FILE")
        if as_json and out is not None:
            document({"id": batch_id, "bytes": written})

    run(work, redis_url=redis_url, pool=pool, as_json=as_json)


async def _written(batches: Batches, file_id: str | None, target: Path | None) -> int:
    """A file of the batch, into that one or to stdout; into a file whole or not at all."""
    if target is None:
        return 0 if file_id is None else await _copied(batches, file_id, sys.stdout.buffer)
    partial = target.with_name(f".{target.name}.partial")
    with partial.open("wb") as file:
        size = 0 if file_id is None else await _copied(batches, file_id, file)
    partial.replace(target)
    return size


async def _copied(batches: Batches, file_id: str, file: Any) -> int:
    size = 0
    async with aclosing(batches.content(file_id)) as pieces:
        async for piece in pieces:
            size += file.write(piece)
    file.flush()
    return size


async def _followed(batches: Batches, batch: BatchRecord) -> BatchRecord:
    with Bar(batch.id) as bar:
        shown = 0

        def look(now: BatchRecord) -> None:
            nonlocal shown
            bar.total(now.total)
            bar.step(now.status.value, now.completed + now.failed - shown)
            shown = now.completed + now.failed

        return await batches.wait(batch.id, look)


async def _warn(client: Client, files: str | None = None) -> None:
    if not await client.batches.feeders():
        where = "" if files is None else f" --files {files}"
        note(f"no gateway feeds batches now, so it waits: start one with lorapool gateway{where}", style="yellow")


def _row(batch: BatchRecord) -> tuple[object, ...]:
    tokens = batch.prompt_tokens + batch.completion_tokens
    counts = map(count, (batch.total, batch.completed, batch.failed, tokens))
    return (batch.id, batch.agent, batch.status.value, *counts, _time(batch.created_ms))


def _show(batch: BatchRecord) -> None:
    lines = f"{count(batch.completed)} completed, {count(batch.failed)} failed of {count(batch.total)}"
    tokens = f"{count(batch.prompt_tokens)} of prompts, {count(batch.completion_tokens)} new"
    known: dict[str, object] = {"id": batch.id, "agent": batch.agent, "status": batch.status.value}
    known |= {"lines": lines, "tokens": tokens}
    known |= {"endpoint": batch.endpoint, "input file": batch.input_file, "output file": batch.output_file}
    known |= {"error file": batch.error_file, "made": _time(batch.created_ms), "has until": _time(batch.expires_ms)}
    known |= {"window": window_text(batch.window_s), "fed by": batch.holder, "trouble": batch.trouble}
    known |= {"errors": [f"line {each['line'] or '-'}: {each['message']}" for each in batch.errors[:5]]}
    fields(known)


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
