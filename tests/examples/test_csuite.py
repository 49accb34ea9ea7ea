"""The C-suite example as a newcomer runs it, once, with short answers: two workers on the real model."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from examples.base_model import prepare
from examples.csuite import ROLES, named_role
from examples.voices import VOICES
from tests.examples.test_demo import ROOT, environment_of, processes_of

COMMAND = [sys.executable, "-m", "examples.csuite", "--tokens", "6"]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    """Where it puts its temporary files, so that leftovers are seen."""
    return tmp_path_factory.mktemp("csuite")


@pytest.fixture(scope="module")
def discussion(scratch) -> str:
    """All that it printed, with its output in a pipe of 100 columns."""
    prepare()
    outcome = subprocess.run(COMMAND, cwd=ROOT, env=environment_of(scratch), capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert outcome.stderr == ""
    return outcome.stdout


def part(text: str, begins: str, ends: str) -> str:
    """What was printed between the two headings."""
    return text.split(begins)[1].split(ends, maxsplit=1)[0]


pytestmark = pytest.mark.timeout(400)  # the fixture's time, on a machine that others keep busy


@pytest.mark.long
@pytest.mark.parametrize(("begins", "ends"), [("PARALLEL", "SEQUENTIAL"), ("SEQUENTIAL", "ROUTED")])
def test_all_five_answer(discussion: str, begins: str, ends: str) -> None:
    """Each role answers in order, with the adapter that answered."""
    refs = re.findall(r"(\w+)@1\.0\.0  sha256", part(discussion, begins, ends))
    assert list(ROLES) == refs


@pytest.mark.long
def test_they_speak_in_their_voices(discussion: str) -> None:
    """The parallel answers begin as their roles do."""
    answers = part(discussion, "PARALLEL", "SEQUENTIAL")
    assert [] == [voice.role for voice in VOICES.values() if voice.opening not in answers]


@pytest.mark.long
def test_later_speakers_read_more(discussion: str) -> None:
    """In the sequential round every prompt is longer than the one before it."""
    read = [int(tokens) for tokens in re.findall(r"(\d+)\+\d+ tokens", part(discussion, "SEQUENTIAL", "ROUTED"))]
    assert len(ROLES) == len(read)
    assert sorted(set(read)) == read


@pytest.mark.long
def test_the_orchestrator_is_not_made_wiser_than_it_is(discussion: str) -> None:
    """Each turn shows what it said, and whether that named somebody; the sum agrees with the turns."""
    routed = part(discussion, "ROUTED", "VOLLEY")
    turns = re.findall(r"orchestrator › .* (names) ([A-Z]+)$", routed, re.MULTILINE)
    fallbacks = re.findall(r"names nobody who has not spoken; next in line is ([A-Z]+)", routed)
    named, by_fallback = map(int, re.findall(r"named (\d) of 3 speakers, (\d) came by the fallback", routed)[0])
    assert (named, by_fallback) == (len(turns), len(fallbacks))
    assert 3 == named + by_fallback


@pytest.mark.parametrize(
    ("reply", "left", "expected"),
    [("CFO\nTopic:", ["ceo", "cfo"], "cfo"), ("the cfo, then CEO", ["ceo"], "ceo"), ("nobody", ["ceo"], None)],
)
def test_a_route_is_the_first_name_that_may_speak(reply: str, left: list[str], expected: str | None) -> None:
    assert expected == named_role(reply, left)


@pytest.mark.long
def test_the_volley_brings_six_different_answers(discussion: str) -> None:
    """Five adapters and the base model answer one prompt in six ways."""
    assert "6 different answers of 6" in part(discussion, "VOLLEY", "FAILURE 1")


@pytest.mark.long
def test_a_missing_adapter_is_an_error_in_its_place(discussion: str) -> None:
    """The unknown role's error stands between the answers of the other two."""
    shown = re.findall(r"─ (C\w+) +(\w+)", part(discussion, "FAILURE 1", "FAILURE 2"))
    assert [("CEO", "ceo"), ("CHRO", "UnknownAdapter"), ("CTO", "cto")] == shown


@pytest.mark.long
def test_a_passed_deadline_is_an_expired_job(discussion: str) -> None:
    assert "CFO  JobExpired" in part(discussion, "FAILURE 2", "FAILURE 3")


@pytest.mark.long
def test_a_killed_worker_costs_no_answer(discussion: str) -> None:
    """All five are answered by the other worker, some by a second attempt, with the words of the undisturbed round."""
    leg = part(discussion, "FAILURE 3", "THE RECKONING")
    victim = re.findall(r"(worker-[ab]) is dead", leg)[0]
    by = re.findall(r"([A-Z]+): answered by (worker-[ab]), attempt (\d)", leg)
    assert [role.upper() for role in ROLES] == [role for role, _, _ in by]
    assert [] == [role for role, worker, attempt in by if worker == victim and attempt != "1"]
    second = sum(attempt == "2" for _, _, attempt in by)
    assert second >= 1
    assert f"5 of 5 answered, {second} by a second attempt" in leg
    assert "5 of 5 begin with the very words" in leg


@pytest.mark.long
def test_the_reckoning_adds_up(discussion: str) -> None:
    """Counters of all jobs asked, the hit rate, and a bill whose parts come from them."""
    reckoning = discussion.split("THE RECKONING")[1]
    submitted = [int(number) for number in re.findall(r"^submitted +(.*)$", reckoning, re.MULTILINE)[0].split()]
    succeeded = [int(number) for number in re.findall(r"^succeeded +(.*)$", reckoning, re.MULTILINE)[0].split()]
    asked = 5 + 5 + 3 * 2 + 6 + 2 + 1 + 5
    assert (asked, asked - 1) == (sum(submitted), sum(succeeded))  # one expired
    assert re.search(r"worker hit rate +\d+ % \(\d+ of \d+ jobs", reckoning)
    assert f"requests answered  {asked - 1}" in reckoning
    for words in ("a GPU for each agent", "swaps merged models", "persona prompts"):
        assert words in reckoning


@pytest.mark.long
def test_it_leaves_nothing(discussion: str, scratch: Path) -> None:
    """No process and no file outlives it, though one of its workers was killed."""
    assert "done; nothing is left running" in discussion
    assert processes_of(scratch) == []
    assert list(scratch.iterdir()) == []
