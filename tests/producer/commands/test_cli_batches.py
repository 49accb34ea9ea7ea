"""``lorapool batch``: what a person reads, what a program reads, and what an error looks like."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result as Outcome

from lorapool.producer import Client
from lorapool.producer.batches.store import store_at
from tests.producer.batches.conftest import Desk, jsonl, line

Run = Callable[..., Outcome]


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "files")


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_bytes(jsonl([line("good", "How long is our runway?"), line("bad", None)]))
    return path


def feed(redis_url: str, pool: str, place: str, batch_id: str) -> None:
    """As a gateway would, until that batch has ended."""

    async def work() -> None:
        async with Client(redis_url, pool=pool) as client:
            desk = Desk(client, store_at(place))
            async with desk.fed():
                await desk.ended(await client.batches.get(batch_id))

    asyncio.run(work())


def test_a_batch_from_the_command_line(
    run: Run, questions: Path, place: str, redis_url: str, pool_name: str, threaded_worker: None, tmp_path: Path
) -> None:
    """Handed in, which says that nobody feeds it yet; shown, fed, listed, and its answers fetched into files."""
    made = run("batch", "submit", str(questions), "--files", place, "--agent", "ada")
    batch_id = made.stdout.strip()
    assert (0, True) == (made.exit_code, batch_id.startswith("batch_"))
    assert f"no gateway feeds batches now, so it waits: start one with lorapool gateway --files {place}" in made.stderr
    early = run("batch", "fetch", batch_id, "--files", place)
    assert (1, True) == (early.exit_code, "is validating" in early.stderr)
    feed(redis_url, pool_name, place, batch_id)
    shown = run("batch", "show", batch_id).stdout
    assert "1 completed, 1 failed of 2" in shown and "5 of prompts, 7 new" in shown
    listed = run("batch", "ls", "--agent", "ada").stdout
    assert batch_id in listed and "completed" in listed
    out, errors = tmp_path / "out", tmp_path / "errors"
    fetched = run("batch", "fetch", batch_id, "--out", str(out), "--errors", str(errors), "--files", place)
    assert 0 == fetched.exit_code
    ids = [json.loads(path.read_text())["custom_id"] for path in (out, errors)]
    assert ["good", "bad"] == ids
    assert out.read_text() == run("batch", "fetch", batch_id, "--files", place).stdout


def test_a_program_reads_json(run: Run, questions: Path, place: str) -> None:
    """Of each command; cancelling says what it is then, and an end that cannot be called off is an error."""
    made = reading(run("batch", "submit", str(questions), "--files", place, "--window", "2h", "--json"))
    assert ("validating", 7200, "cli") == (made["status"], made["window_s"], made["agent"])
    assert [made["id"]] == [each["id"] for each in reading(run("batch", "ls", "--json"))]
    assert made == reading(run("batch", "show", made["id"], "--json"))
    assert {"id": made["id"], "status": "cancelling"} == reading(run("batch", "cancel", made["id"], "--json"))


def reading(outcome: Outcome) -> Any:
    assert 0 == outcome.exit_code, outcome.stderr
    return json.loads(outcome.stdout)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", "batch_none"), "no batch 'batch_none'"),
        (("cancel", "../x"), "no"),
        (("submit", "/nowhere.jsonl"), "is no file"),
        (("submit", __file__), "the first line is no request"),
        (("submit", __file__, "--endpoint", "/v1/embeddings"), "expected one of /v1/chat/completions"),
        (("submit", __file__, "--window", "soon"), "24h"),
        (("submit", "{questions}", "--files", "ftp://x"), "expected a folder"),
    ],
)
def test_errors_are_one_line(run: Run, questions: Path, arguments: tuple[str, ...], says: str) -> None:
    """And exit code 1."""
    outcome = run("batch", *(each.format(questions=questions) for each in arguments))
    assert (1, 1, True) == (outcome.exit_code, outcome.stderr.count("\n"), says in outcome.stderr)
