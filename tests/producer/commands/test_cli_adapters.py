"""``lorapool adapters``: what a person reads, and what a program does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result as Outcome

Run = Callable[..., Outcome]
Make = Callable[..., Path]


def _json(outcome: Outcome) -> Any:
    assert outcome.exit_code == 0, outcome.output
    return json.loads(outcome.stdout)


@pytest.fixture
def two_versions(run: Run, threaded_worker: None, make_adapter: Make) -> None:
    """cfo@1 and cfo@2, ready."""
    for version in "12":
        assert 0 == run("adapters", "register", "cfo", str(make_adapter(salt=version)), "--version", version).exit_code


def test_a_name_moves_and_comes_back(run: Run, two_versions: None) -> None:
    """One line for each move, and the whole story on request."""
    assert "Boss is now cfo@1\n" == run("adapters", "alias", "Boss", "cfo@1").stdout
    moved = _json(run("adapters", "alias", "Boss", "cfo@2", "--json"))
    assert ("cfo@2", ["boss"]) == (moved["ref"], moved["aliases"])
    assert "boss is now cfo@1\n" == run("adapters", "rollback", "boss").stdout
    lines = run("adapters", "alias", "boss").stdout.splitlines()
    assert ["WHEN", "HOW", "FROM", "TO"] == lines[0].split()
    assert [["rollback", "cfo@2", "cfo@1"], ["set", "cfo@1", "cfo@2"], ["set", "-", "cfo@1"]] == [
        line.split()[2:] for line in lines[1:]
    ]
    assert ["rollback", "set", "set"] == [m["how"] for m in _json(run("adapters", "alias", "boss", "--json"))["moves"]]
    assert "boss is no alias any more; it was cfo@1\n" == run("adapters", "alias", "boss", "--delete").stdout


def test_a_part_goes_to_a_canary(run: Run, two_versions: None) -> None:
    """Set, told in the name's story, ended by 0; another adapter's version is refused."""
    run("adapters", "alias", "boss", "cfo@1")
    assert "10 % of the jobs of boss go to cfo@2\n" == run("adapters", "canary", "boss", "cfo@2").stdout
    assert ["canary", "set"] == [m["how"] for m in _json(run("adapters", "alias", "boss", "--json"))["moves"]]
    assert "boss has no canary\n" == run("adapters", "canary", "boss", "cfo@2", "--percent", "0").stdout
    refused = run("adapters", "canary", "boss", "cfo@1")
    assert (1, True) == (refused.exit_code, "expected another version of what it points at" in refused.stderr)


def test_a_rollback_with_nothing_behind_it_is_refused(run: Run, two_versions: None) -> None:
    """One line, exit code 1."""
    run("adapters", "alias", "boss", "cfo@1")
    outcome = run("adapters", "rollback", "boss")
    expected = "error: alias 'boss' has no earlier version that still serves; it stays at cfo@1\n"
    assert (1, expected) == (outcome.exit_code, outcome.stderr)


def test_a_version_is_removed(run: Run, two_versions: None) -> None:
    """Once no name needs it; then it is listed on request only."""
    run("adapters", "alias", "boss", "cfo@2")
    outcome = run("adapters", "rm", "cfo@2")
    assert (1, "error: cfo@2 is what boss means: move or delete the alias first\n") == (
        outcome.exit_code,
        outcome.stderr,
    )
    run("adapters", "alias", "boss", "cfo@1")
    assert "cfo@2 is removed\n" == run("adapters", "rm", "cfo@2").stdout
    assert ["cfo@1"] == [record["ref"] for record in _json(run("adapters", "ls", "--json"))]
    assert ["ready", "removed"] == [r["status"] for r in _json(run("adapters", "ls", "--removed", "--json"))]
