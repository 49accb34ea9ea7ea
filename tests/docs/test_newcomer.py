"""A newcomer with nothing but the base install follows the quick start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.conftest import DOCS
from tests.docs.snippets import Session, blocks
from tests.docs.test_pages import HTTP, QUICK_START, URL, run_and_compare
from tests.test_packaging import HEAVY, build_wheel

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with the wheel of this checkout and what the wheel asks for."""
    folder = tmp_path_factory.mktemp("newcomer")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "agent"], check=True)
    python = folder / "agent" / "bin" / "python"
    subprocess.run([*PIP, "--python", python, "install", "--no-compile", build_wheel(folder)], check=True)
    return python


@pytest.mark.long  # briefly: test_pages.py, and tests/test_packaging.py for what the wheel asks for
@pytest.mark.timeout(400)  # on a machine that others keep busy
def test_quick_start_runs_on_the_base_install(newcomer: Path, folder: Path, docs_url: str, docs_http: str) -> None:
    """Without torch or any other model library, each step of the quick start does what the page shows."""
    probe = f"import importlib.util as u; print([name for name in {sorted(HEAVY)} if u.find_spec(name)])"
    assert "[]\n" == subprocess.run([newcomer, "-c", probe], capture_output=True, text=True, check=True).stdout
    session = Session(folder, newcomer, docs_url, {URL: docs_url, HTTP: docs_http})
    for block in blocks(DOCS / QUICK_START):
        if block.not_run is None:
            run_and_compare(session, block)
