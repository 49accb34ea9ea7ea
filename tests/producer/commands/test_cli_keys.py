"""``lorapool keys``: what a person reads, what a program reads, and that a secret is told once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result as Outcome

Run = Callable[..., Outcome]
SECRET = re.compile(r"lp-[A-Za-z0-9_-]{43}")


def _json(outcome: Outcome) -> Any:
    assert outcome.exit_code == 0, outcome.output
    return json.loads(outcome.stdout)


def test_add_prints_the_secret_alone(run: Run) -> None:
    """On stdout, for $(…); what to do with it on stderr."""
    outcome = run("keys", "add", "board-7")
    assert (0, True) == (outcome.exit_code, bool(SECRET.fullmatch(outcome.stdout.removesuffix("\n"))))
    assert "shown this once" in outcome.stderr
    assert not SECRET.search(outcome.stderr)


def test_the_secret_is_told_once(run: Run) -> None:
    """Neither list nor record has it, nor its hash."""
    secret = run("keys", "add", "board-7").stdout.strip()
    for command in (
        ("keys", "ls"),
        ("keys", "show", "board-7"),
        ("keys", "ls", "--json"),
        ("keys", "show", "board-7", "--json"),
    ):
        said = run(*command).output
        assert "board-7" in said
        assert not SECRET.search(said)
        assert not re.search(r"[0-9a-f]{64}", said), secret


def test_a_key_as_json(run: Run) -> None:
    """With all that was asked for; numbers may be written as 1e6."""
    words = "keys add board-7 --adapters cfo* --adapters _base --jobs-per-minute 60 --tokens-per-day 1e6 --window 8"
    added = _json(run(*words.split(), "--agent", "board", "--role", "operator", "--json"))
    secret = added.pop("secret")
    assert SECRET.fullmatch(secret)
    expected = {
        "name": "board-7", "agent": "board", "adapters": ["cfo*", "_base"], "role": "operator", "jobs_per_minute": 60,
        "tokens_per_day": 1_000_000, "window": 8, "created_ms": added["created_ms"], "revoked_ms": None,
    }  # fmt: skip
    assert expected == added
    assert [{**expected, "jobs_this_minute": 0, "tokens_today": 0}] == _json(run("keys", "ls", "--json"))
    assert {**expected, "counters": {}} == _json(run("keys", "show", "board-7", "--json"))


def test_ls_shows_use_against_limits(run: Run) -> None:
    """A table; what is not limited has its number alone."""
    run("keys", "add", "board-7", "--adapters", "cfo*", "--jobs-per-minute", "60", "--tokens-per-day", "1e6")
    run("keys", "add", "ops", "--role", "operator")
    _, board, ops = run("keys", "ls").stdout.splitlines()
    assert re.search(r"^board-7 +agent +board-7 +cfo\* +0 of 60 +0 of 1,000,000 +- +-$", board)
    assert re.search(r"^ops +operator +ops +\* +0 +0 +- +-$", ops)


def test_revoke_says_so_and_ls_shows_it(run: Run) -> None:
    run("keys", "add", "board-7")
    assert "board-7 is revoked\n" == run("keys", "revoke", "board-7").stdout
    assert {"revoked": "board-7"} == _json(run("keys", "revoke", "board-7", "--json"))
    assert re.search(r"UTC$", run("keys", "ls").stdout.splitlines()[1])


def test_no_keys(run: Run) -> None:
    """On stderr, with what it means and the next step."""
    outcome = run("keys", "ls")
    assert ("", True) == (outcome.stdout, "lorapool keys add" in outcome.stderr)
    assert [] == _json(run("keys", "ls", "--json"))


@pytest.mark.parametrize(("arguments", "code", "says"), [
    (["revoke", "nobody"], 1, "no API key 'nobody'"),
    (["show", "nobody"], 1, "no API key 'nobody'"),
    (["add", "bad name"], 1, "name = 'bad name'"),
    (["add", "x", "--adapters", "a b"], 1, "adapters"),
    (["add", "x", "--jobs-per-minute", "0"], 1, "jobs_per_minute = 0"),
    (["add", "x", "--jobs-per-minute", "many"], 2, "--jobs-per-minute: 'many': expected a whole number"),
    (["add", "x", "--tokens-per-day", "0.5"], 2, "--tokens-per-day: '0.5': expected a whole number"),
    (["add", "x", "--tokens-per-day", "inf"], 2, "expected a whole number"),
    (["add", "x", "--role", "king"], 2, "king"),
])  # fmt: skip
def test_what_is_wrong_is_said(run: Run, arguments: list[str], code: int, says: str) -> None:
    """One line, and the exit code of a refusal or of a wrong command line."""
    outcome = run("keys", *arguments)
    assert (code, True) == (outcome.exit_code, says in outcome.stderr)
    assert 1 == len(outcome.stderr.strip().splitlines())


def test_a_name_that_is_taken(run: Run) -> None:
    """As a person and as a program hear it."""
    run("keys", "add", "board-7")
    assert "error: an API key 'board-7' exists" in run("keys", "add", "board-7").stderr
    told = json.loads(run("keys", "add", "board-7", "--json").stderr)["error"]
    assert "KeyConflict" == told["type"]


def test_the_agent_of_a_key_is_not_the_one_who_adds_it(run: Run) -> None:
    """LORAPOOL_AGENT is who submits jobs; a key has a variable of its own."""
    assert "k1" == _json(run("keys", "add", "k1", "--json", LORAPOOL_AGENT="me"))["agent"]
    assert "you" == _json(run("keys", "add", "k2", "--json", LORAPOOL_KEY_AGENT="you"))["agent"]
