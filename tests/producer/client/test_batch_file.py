"""``lorapool submit --file``: every line gets its answer or its error, once, across interruptions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result as Outcome

from lorapool.producer import Client, RedisUnreachable
from lorapool.producer.client.batch_file import BatchFile
from tests.producer.canned_worker import CannedWorker
from tests.producer.conftest import in_a_thread

Run = Callable[..., Outcome]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "jobs.jsonl", tmp_path / "results.jsonl"


def write(path: Path, *lines: object) -> None:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))


def read(path: Path) -> list[dict[str, Any]]:
    """By line number."""
    return sorted((json.loads(line) for line in path.read_text().splitlines()), key=lambda answer: answer["line"])


def submit(run: Run, files: tuple[Path, Path], *flags: str) -> Outcome:
    return run("submit", "--file", str(files[0]), "--out", str(files[1]), *flags)


def submitted(run: Run) -> int:
    """How many jobs there ever were."""
    return int(json.loads(run("stats", "--agent", "cli", "--json").stdout)["counters"]["submitted"])


def test_every_line_gets_its_answer_or_its_error(run: Run, files: tuple[Path, Path], threaded_worker: None) -> None:
    """Same count in as out, each with its line number; the exit code tells that some failed."""
    write(
        files[0],
        {"adapter": None, "prompt": "one"},
        "",
        {"adapter": None, "messages": [{"role": "user", "content": "two"}], "job_id": "mine"},
        {"adapter": "nobody", "prompt": "x"},
        "{not json",
        {"adapter": None, "prompt": "fail"},
        {"prompt": "x"},
        {"adapter": None, "prompt": "x", "temprature": 1},
        {"adapter": None, "prompt": "x", "stream": True},
        "[1]",
    )
    outcome = submit(run, files)
    assert (1, f"9 lines, 2 succeeded, 7 failed; see {files[1]}\n") == (outcome.exit_code, outcome.stdout)
    answers = read(files[1])
    assert [1, 3, 4, 5, 6, 7, 8, 9, 10] == [line["line"] for line in answers]
    assert ["_base heard: one", "_base heard: two"] == [line["text"] for line in answers if line["ok"]]
    assert ("mine", "_base", 3) == (
        answers[1]["job_id"],
        answers[1]["adapter"],
        answers[1]["usage"]["completion_tokens"],
    )
    errors = ["UnknownAdapter", "InvalidRequest", "JobFailed"] + ["InvalidRequest"] * 4
    assert errors == [line["error"] for line in answers if not line["ok"]]
    assert "did you mean 'temperature'" in answers[6]["message"]


def test_what_the_results_hold_is_not_asked_again(run: Run, files: tuple[Path, Path], threaded_worker: None) -> None:
    """A second run only asks what is new, and finishes a line that a crash cut in half."""
    write(files[0], *({"adapter": None, "prompt": f"q{n}"} for n in range(3)))
    assert 0 == submit(run, files).exit_code
    first = files[1].read_text().splitlines(keepends=True)
    files[1].write_text("".join(first[:2]) + first[2][:20])
    numbers = json.loads(submit(run, files, "--json").stdout)
    assert {"lines": 3, "succeeded": 3, "failed": 0, "already": 2, "left": 0, "out": str(files[1])} == numbers
    assert sorted(first) == sorted(files[1].read_text().splitlines(keepends=True))
    assert 3 == submitted(run)


def test_the_same_line_is_the_same_job(run: Run, files: tuple[Path, Path], threaded_worker: None) -> None:
    """Even if the results are lost, nothing runs twice; twice the same text are two lines."""
    write(files[0], *({"adapter": None, "prompt": "same"} for _ in range(2)))
    submit(run, files)
    ids = [line["job_id"] for line in read(files[1])]
    files[1].unlink()
    submit(run, files)
    assert ids == [line["job_id"] for line in read(files[1])]
    assert 2 == len(set(ids)) == submitted(run)


def test_flags_hold_for_lines_that_do_not_say_otherwise(
    run: Run, files: tuple[Path, Path], threaded_worker: None
) -> None:
    """Adapter and sampling params."""
    write(files[0], {"prompt": "a b c d"}, {"prompt": "a b c d", "max_new_tokens": 4})
    outcome = run("submit", "_base", "--file", str(files[0]), "--out", str(files[1]), "-n", "3")
    assert 0 == outcome.exit_code, outcome.output
    assert [3, 4] == [line["usage"]["completion_tokens"] for line in read(files[1])]


def test_errors_are_asked_again_on_request(run: Run, files: tuple[Path, Path], threaded_worker: None) -> None:
    """As new jobs; what succeeded stays as it is, and a later run without the flag asks nothing."""
    write(files[0], {"adapter": None, "prompt": "fail"}, {"adapter": None, "prompt": "fine"})
    submit(run, files)
    before = read(files[1])
    assert 1 == submit(run, files).exit_code
    assert before == read(files[1])
    submit(run, files, "--retry-errors")
    after = read(files[1])
    assert (before[1], f"{before[0]['job_id']}-1", 1) == (after[1], after[0]["job_id"], after[0]["tries"])
    submit(run, files, "--retry-errors")
    assert (f"{before[0]['job_id']}-2", 2) == (read(files[1])[0]["job_id"], read(files[1])[0]["tries"])
    assert "2 already" in submit(run, files).stdout
    assert 4 == submitted(run)


@pytest.mark.parametrize("results", ["not json\n", '{"a": 1}\n', '{"line": 1, "job_id": "other", "ok": true}\n'])
def test_the_results_of_something_else_are_not_touched(run: Run, files: tuple[Path, Path], results: str) -> None:
    """One line says so."""
    write(files[0], {"adapter": None, "prompt": "x"})
    files[1].write_text(results)
    outcome = submit(run, files)
    assert (1, results) == (outcome.exit_code, files[1].read_text())
    assert "give another --out" in outcome.stderr


@pytest.mark.parametrize(("file", "out"), [("none.jsonl", "out.jsonl"), ("jobs.jsonl", "none/out.jsonl")])
def test_a_file_that_cannot_be_opened_is_named(run: Run, files: tuple[Path, Path], file: str, out: str) -> None:
    """Exit code 1, one line."""
    write(files[0], {"adapter": None, "prompt": "x"})
    outcome = run("submit", "--file", str(files[0].with_name(file)), "--out", str(files[0].parent / out))
    assert (1, 1) == (outcome.exit_code, outcome.stderr.count("\n"))
    assert "cannot be opened (No such file or directory)" in outcome.stderr


@pytest.mark.parametrize(
    "flags",
    [
        ["--file", "jobs.jsonl"],
        ["--out", "results.jsonl"],
        ["--file", "a", "--out", "b", "--stream"],
        ["_base", "a prompt", "--file", "a", "--out", "b"],
        [],
    ],
)
def test_what_does_not_go_together_is_wrong_usage(run: Run, flags: list[str]) -> None:
    assert 2 == run("submit", *flags).exit_code


async def test_more_lines_than_an_agents_window_all_get_through(
    redis_url: str, pool_name: str, files: tuple[Path, Path], worker: CannedWorker
) -> None:
    """A full window makes them wait, not fail."""
    write(files[0], *({"adapter": None, "prompt": f"q{n}"} for n in range(200)))
    async with Client(redis_url, pool=pool_name) as client:
        heard: list[None] = []
        tally = await BatchFile(*files, {}).run(client, on_line=lambda: heard.append(None))
    assert (200, 0, 200) == (tally.succeeded, tally.left, len(heard))
    assert list(range(1, 201)) == [line["line"] for line in read(files[1])]


async def test_a_server_that_goes_away_leaves_lines_for_the_next_run(
    redis_url: str, pool_name: str, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are no errors, nothing of them is written, and it does not try them all one by one."""
    write(files[0], *({"adapter": None, "prompt": f"q{n}"} for n in range(50)))
    async with Client(redis_url, pool=pool_name) as client:
        tries: list[object] = []

        async def gone(jobs: Any) -> Any:
            tries.extend(jobs)
            raise RedisUnreachable("gone")

        monkeypatch.setattr(client._queue, "enqueue_many", gone)
        tally = await BatchFile(*files, {}).run(client, at_once=4)
    assert (0, 0, 50, 4) == (tally.succeeded, tally.failed, tally.left, len(tries))
    assert not tally.whole
    assert "" == files[1].read_text()


def test_after_ctrl_c_the_same_command_goes_on(redis_url: str, pool_name: str, files: tuple[Path, Path]) -> None:
    """Exit code 130 and no traceback; then every line is there once, and no job ran twice."""
    write(files[0], *({"adapter": None, "prompt": f"q{n}", "max_new_tokens": 4} for n in range(40)))
    env = {**os.environ, "LORAPOOL_REDIS_URL": redis_url, "LORAPOOL_POOL": pool_name}
    command = [sys.executable, "-m", "lorapool.producer.cli", "submit", "--at-once", "4"]
    command += ["--file", str(files[0]), "--out", str(files[1])]
    with in_a_thread(redis_url, pool_name, word_s=0.05):
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        until_some(files[1], 5)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
        assert 130 == process.returncode
        assert "Traceback" not in stderr
        assert "the same command again goes on" in stderr
        held = len(files[1].read_text().splitlines())
        assert 5 <= held < 40
        again = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert 0 == again.returncode, again.stderr
    assert f"{held} already" in again.stdout
    answers = read(files[1])
    assert list(range(1, 41)) == [line["line"] for line in answers]
    assert {1} == {line["attempts"] for line in answers}


def until_some(path: Path, lines: int) -> None:
    give_up_at = time.monotonic() + 30
    while time.monotonic() < give_up_at:
        if path.exists() and len(path.read_text().splitlines()) >= lines:
            return
        time.sleep(0.02)
    raise AssertionError("no results")
