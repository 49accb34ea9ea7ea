"""What surrounds the code: hooks, templates and the commands that CONTRIBUTING.md names."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CATEGORIES = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)
TEMPLATES = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))


@pytest.fixture(scope="module")
def hooks() -> list[dict[str, Any]]:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert ["local"] == [repository["repo"] for repository in config["repos"]]
    return config["repos"][0]["hooks"]


def targets() -> set[str]:
    return set(TARGET.findall((ROOT / "Makefile").read_text()))


def test_hooks_have_what_pre_commit_asks_for(hooks) -> None:
    """An id of its own, a name, an entry and a language each, and stages that there are."""
    assert len(hooks) == len({hook["id"] for hook in hooks})
    assert all({"name", "entry", "language"} <= hook.keys() and hook["language"] == "system" for hook in hooks)
    assert {"pre-commit", "pre-push"} >= {stage for hook in hooks for stage in hook.get("stages", ())}
    assert {"ruff", "ruff-format"} <= {hook["id"] for hook in hooks}


def test_hooks_run_what_is_there(hooks) -> None:
    """Each entry is a target of the Makefile or a program of the environment, and its paths exist."""
    for hook in hooks:
        program, *arguments = hook["entry"].split()
        assert arguments[0] in targets() if program == "make" else program in {".venv/bin/ruff", ".venv/bin/python"}
        assert [] == [path for path in arguments if path.endswith(".py") and not (ROOT / path).exists()]


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md", ".github/pull_request_template.md"])
def test_pages_name_targets_of_the_makefile(page: str) -> None:
    """Every `make` command of the page can be run."""
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / page).read_text(), re.MULTILINE))
    assert named
    assert named <= targets()


def test_changelog_goes_by_version_and_category() -> None:
    """Unreleased comes first, then versions, newest first, the current one among them; all after 0.1.0 by category."""
    _, *sections = re.split(r"(?m)^## ", (ROOT / "CHANGELOG.md").read_text())
    unreleased, *versions = (section.partition("\n")[0].split()[0] for section in sections)
    assert "Unreleased" == unreleased
    assert versions == sorted(versions, key=lambda version: [int(part) for part in version.split(".")], reverse=True)
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == versions[0]
    for section in sections[: versions.index("0.1.0") + 1]:
        assert {*re.findall(r"(?m)^### (.+)$", section)} <= CATEGORIES, section[:20]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_issue_templates_are_valid(path: Path) -> None:
    """Each validates against GitHub's schema."""
    kind = "vendor.github-issue-config" if path.name == "config.yml" else "vendor.github-issue-forms"
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", kind, path]
    outcome = subprocess.run(command, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
