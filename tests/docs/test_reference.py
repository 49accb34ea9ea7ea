"""The pages of docs/reference say what the code says, and no key or counter is left out."""

from __future__ import annotations

import re

import pytest

from docs.reference.keys import PARTITION, POOL, named
from docs.reference.markdown import first_sentence, table
from docs.reference.pages import HERE, pages
from lorapool.shared.fleet.counters import OF_JOBS, OF_WORKERS
from lorapool.shared.server.keys import OF_SCRIPTS, ONCE
from lorapool.worker.engine.busy_time import BusyTime
from lorapool.worker.engine.port import EngineCounters
from lorapool.worker.loop import heartbeat
from tests.docs.conftest import DOCS, ROOT
from tests.docs.markdown import links

LUA = "\n".join(path.read_text() for path in sorted((ROOT / "shared").rglob("*.lua")))
KEY = re.compile(r"P \.\. '([a-z_]+)")
COUNTED = re.compile(r"\bcount\([^\n]*?'([a-z_]+)'(?: or '([a-z_]+)')?")


@pytest.mark.parametrize("name", pages())
def test_page_is_what_the_code_says(name: str) -> None:
    """The committed page equals the one made now."""
    assert pages()[name] == (HERE / name).read_text(), f"docs/reference/{name} is out of date: run make reference"


def test_every_page_stands_in_the_index() -> None:
    """docs/README.md links each page of the reference."""
    assert {f"reference/{path.name}" for path in HERE.glob("*.md")} <= set(links(DOCS / "README.md"))


def test_every_key_of_the_scripts_is_described() -> None:
    """What a Lua text names below the prefix stands in shared/server/keys.py, with its type and meaning."""
    described = {name for name, _ in [*named(POOL), *named(PARTITION), *ONCE.items(), *OF_SCRIPTS.items()]}
    used = set(KEY.findall(LUA))
    assert len(used) > 30
    assert used <= {name.partition(":")[0] for name in described}


def test_no_key_is_described_that_nobody_uses() -> None:
    """Each name of the tables for keys without a method is in a Lua text or a call of ``one``."""
    python = "\n".join(path.read_text() for path in (ROOT / "shared").rglob("*.py"))
    used = set(KEY.findall(LUA)) | set(re.findall(r"\.one\(\"([a-z_]+)", python))
    assert {name.partition(":")[0] for name in [*ONCE, *OF_SCRIPTS]} - used <= {"report", "refused"}


def test_every_counter_of_jobs_is_described() -> None:
    """What scripts count, and the loads that workers report, and nothing else."""
    counted = {name for pair in COUNTED.findall(LUA) for name in pair if name}
    states = {"succeeded", "failed", "cancelled", "expired"}  # counted by the state that a job ends in
    assert counted | states | {"loads"} == set(OF_JOBS)


def test_every_counter_of_workers_is_described() -> None:
    """What a heartbeat counts, and which of it the pool sums up."""
    engine = set(heartbeat._counter_fields(EngineCounters())) | {"mixed_steps_<n>"}
    assert engine | set(BusyTime().totals()) | {"restarts", "malformed"} == set(OF_WORKERS)
    assert set(heartbeat.COUNTED) == {name for name, text in OF_WORKERS.items() if text.endswith("summed in usage")}


def test_markdown_of_docstrings() -> None:
    """Bars are no borders; a sentence ends at its full stop, not at a dot within a word."""
    assert "| a |\n| --- |\n| x\\|y |\n" == table(("a",), [("x|y",)])
    assert "Reads `a.b` twice." == first_sentence("Reads ``a.b``\ntwice. Then more.\n\nRest.")
