"""submit --file: a file of requests becomes a file of results, with a progress bar, and goes on after Ctrl-C."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import typer

from lorapool.producer.client.batch_file import BatchFile, Tally
from lorapool.producer.client.client import Client
from lorapool.producer.commands.render import Bar, count, document, note, say
from lorapool.producer.commands.session import refuse, run
from lorapool.shared.errors import LorapoolError


def submit_file(
    file: Path,
    out: Path,
    defaults: dict[str, Any],
    *,
    retry_errors: bool,
    at_once: int,
    redis_url: str | None,
    pool: str | None,
    as_json: bool,
) -> None:
    """Ask every line of ``file`` that ``out`` holds no answer to."""
    try:
        batch = BatchFile(file, out, defaults, retry_errors=retry_errors)
        total = batch.count()
    except LorapoolError as error:
        refuse(error, as_json=as_json)

    async def work(client: Client) -> None:
        with Bar(file.name) as bar:
            bar.total(total)
            try:
                tally = await batch.run(client, at_once=at_once, on_line=bar.step)
            except asyncio.CancelledError:  # Ctrl-C
                note(f"stopped; what has been answered is in {out}: the same command again goes on")
                raise
        _show(tally, total, out, as_json)
        if not tally.whole:
            raise typer.Exit(1)

    run(work, redis_url=redis_url, pool=pool, as_json=as_json)


def _show(tally: Tally, total: int, out: Path, as_json: bool) -> None:
    numbers = {"lines": total, "succeeded": tally.succeeded, "failed": tally.failed}
    numbers |= {"already": tally.already, "left": tally.left}
    if as_json:
        document({**numbers, "out": str(out)})
        return
    parts = [f"{count(value)} {name}" for name, value in numbers.items() if value or name in {"lines", "succeeded"}]
    say(f"{', '.join(parts)}; see {out}")
    for reason in sorted(tally.reasons)[:5]:
        note(f"left for the next run: {reason}", style="red")
