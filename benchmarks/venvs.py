"""A virtual environment for each peer that needs one, made once and kept below the cache folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PIP = ("-m", "pip", "--disable-pip-version-check", "-q")


def python_of(venv: str, requirements: tuple[str, ...], unwanted: tuple[str, ...] = ()) -> str:
    """The interpreter of ``venv``, which is made if it is not there; ``unwanted`` packages are taken out again."""
    folder = _root() / venv
    python, done = folder / "bin" / "python", folder / ".requirements"
    wanted = "\n".join([*requirements, *(f"- {name}" for name in unwanted)])
    if not done.exists() or done.read_text() != wanted:
        print(f"setting up {folder}: {', '.join(requirements)}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, *PIP, "install", *requirements], check=True)
        if unwanted:
            subprocess.run([python, *PIP, "uninstall", "-y", *unwanted], check=True)
        done.write_text(wanted)
    return str(python)


def _root() -> Path:
    cache = os.environ.get("LORAPOOL_CACHE", "~/.cache/lorapool")
    return Path(cache).expanduser() / "bench-venvs"
