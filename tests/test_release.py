"""What happens on a tag, and on a push: the workflows, and the check that a tag is a release."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.release import ROOT, notes

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
CHANGELOG = (
    "# Changelog\n\n## Unreleased\n\n- new\n\n## 1.2.3\n\n### Added\n\n- a thing\n\n## 1.2.0\n\n- old\n\n## 1.1.9\n"
)
PINNED = re.compile(r"[\w-]+/[\w-]+@(v\d+|release/v\d+|[0-9a-f]{40})")


def test_notes_are_the_section_of_the_version() -> None:
    """All of it, and nothing of its neighbours."""
    assert "### Added\n\n- a thing\n" == notes("v1.2.3", "1.2.3", CHANGELOG)


@pytest.mark.parametrize(
    ("tag", "version", "complaint"),
    [("v1.2.4", "1.2.3", "expected 'v1.2.3'"), ("1.2.3", "1.2.3", "expected 'v1.2.3'"),
     ("v1.2", "1.2", "says nothing of 1.2"), ("v1.1.9", "1.1.9", "says nothing"), ("v2.0.0", "2.0.0", "says nothing")],
)  # fmt: skip
def test_what_does_not_agree_is_no_release(tag: str, version: str, complaint: str) -> None:
    """Another version than pyproject's, a version that the changelog lacks, or one with nothing below it."""
    with pytest.raises(SystemExit, match=complaint):
        notes(tag, version, CHANGELOG)


def test_the_current_version_could_be_tagged() -> None:
    """Its notes are there; a tag of another version ends with status 1 and a line of explanation."""
    command = [sys.executable, "deploy/release.py"]
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    good = subprocess.run([*command, f"v{version[1]}"], cwd=ROOT, capture_output=True, text=True)
    bad = subprocess.run([*command, "v99.0"], cwd=ROOT, capture_output=True, text=True)
    assert (0, "") == (good.returncode, good.stderr)
    assert good.stdout.strip()
    assert (1, "") == (bad.returncode, bad.stdout)
    assert "v99.0" in bad.stderr


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.name)
def workflow(request: pytest.FixtureRequest) -> dict[str, Any]:
    text = Path(request.param).read_text()
    assert "secrets." not in text, "trusted publishing needs none"
    return yaml.safe_load(text)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_valid(path: Path) -> None:
    """Each validates against GitHub's schema."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", path]
    outcome = subprocess.run(command, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_jobs_may_do_no_more_than_they_need(workflow) -> None:
    """A workflow may read the repository; what writes more is one job's, and named there. No job runs for ever."""
    assert {"contents": "read"} == workflow["permissions"]
    for name, job in workflow["jobs"].items():
        writes = {scope for scope, right in job.get("permissions", {}).items() if right == "write"}
        allowed = {"build": {"id-token", "attestations"}, "publish": {"id-token"}, "announce": {"contents"}}
        assert writes == allowed.get(name, set())
        assert job["timeout-minutes"] <= 90


def test_actions_are_pinned(workflow) -> None:
    """By major version or by commit: no branch of somebody else's runs here."""
    used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert [] == [action for action in used if not PINNED.fullmatch(action)]


def test_workflows_run_targets_of_the_makefile(workflow) -> None:
    """What CI runs can be run by hand, under the same name."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    runs = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert {run.split()[1] for run in runs if run.startswith("make ")} <= targets
    assert any(run.startswith("make test") for run in runs)


def test_tested_pythons_are_those_promised(workflow) -> None:
    """The matrix has the oldest and the newest Python that the classifiers name."""
    named = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())
    matrices = [job["strategy"]["matrix"]["python"] for job in workflow["jobs"].values() if "strategy" in job]
    assert [[named[0], named[-1]]] == matrices
