"""The lock files of deploy/: what the image of a worker installs is pinned by version and by hash, and nothing else."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKS = sorted((ROOT / "deploy").glob("*.lock"))
PIN = re.compile(
    r"^(?P<name>[a-z0-9][a-z0-9-]*)==(?P<version>[\w.]+)(?P<hashes>(?: \\\n    --hash=sha256:[0-9a-f]{64})+)$",
    re.MULTILINE,
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def body(lock: Path) -> str:
    return re.sub(r"^#.*\n", "", lock.read_text(), flags=re.MULTILINE)


def pins() -> dict[str, str]:
    """Version by name, of both files together."""
    return {match["name"]: match["version"] for lock in LOCKS for match in PIN.finditer(body(lock))}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_line_is_a_pin_with_hashes(lock: Path) -> None:
    """No index, no option, no path, no URL, no package without a hash: pip's own format, and only that."""
    assert PIN.search(body(lock))
    assert "" == PIN.sub("", body(lock)).strip()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_it_says_what_it_was_made_for(lock: Path) -> None:
    """Python, platform and source stand in its head, and no place of the machine that made it."""
    head = "".join(re.findall(r"^#.*\n", lock.read_text(), re.MULTILINE))
    assert all(words in head for words in ("`make lock`", "PyPI", "CPython 3.11", "Linux x86-64"))
    assert not re.search(r"[a-z]+://|(?<!\w)/\w", head)


def test_no_package_is_pinned_twice() -> None:
    """One version for both files."""
    assert len(pins()) == sum(len(PIN.findall(body(lock))) for lock in LOCKS)


def test_it_has_what_a_worker_needs() -> None:
    """Each dependency of lorapool[worker], in a version that pyproject.toml allows; torch in the one that is tested."""
    asked = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["worker"]]
    assert [] == [text for text in asked if not _satisfied(Requirement(text), pins())]
    tested = re.search(r"^TORCH \?= torch==(\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert tested
    assert tested[1] == pins()["torch"]


def _satisfied(asked: Requirement, pinned: dict[str, str]) -> bool:
    version = pinned.get(canonicalize_name(asked.name))
    return version is not None and asked.specifier.contains(version)


def test_the_image_installs_what_is_pinned() -> None:
    """The Dockerfile takes every package but CPU builds of torch from the lock files, and demands their hashes."""
    installs = re.findall(r"pip install (.+?)(?:;| &&|\n\s*(?:RUN|$))", (ROOT / "Dockerfile").read_text())
    for install in installs:
        assert "--no-deps" in install, install
        assert "--require-hashes" in install or "--no-index" in install or "TORCH_INDEX" in install, install
    assert {lock.name for lock in LOCKS} == set(re.findall(r"--requirement /deploy/(\S+\.lock)", "\n".join(installs)))


@pytest.mark.parametrize(
    "line",
    ["torch==2.13.0", "--index-url x", "torch>=2 \\\n    --hash=sha256:" + "0" * 64, "./torch.whl \\\n    --hash=x"],
)
def test_other_lines_are_no_pins(line: str) -> None:
    assert PIN.sub("", line)
