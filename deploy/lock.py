"""``python deploy/lock.py TORCH`` (`make lock`): pin what the worker's image installs, and each file by its sha256.

Knows that torch and CUDA's libraries have a file of their own, since a CPU image takes another build of torch. Asks
PyPI alone, whatever index this machine's pip is told to use; names neither.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON, PLATFORM = "3.11", "x86_64-manylinux_2_28"  # the Dockerfile's, and what torch's wheels ask for
ON_CUDA = re.compile(r"(torch|triton|nvidia-[\w-]+|cuda-[\w-]+)==")
HEAD = """\
# {what}
# Made by `make lock`, with uv {uv} from PyPI, for CPython {python} on Linux x86-64 and glibc 2.28 or newer.
# pip installs these versions there, and refuses a file whose sha256 is not listed. For another platform or Python, make
# it anew.
"""
FILES = {
    "requirements.lock": "What workers and gateways need, all but torch: `lorapool[worker,gateway]` and its needs.",
    "requirements-cuda.lock": "torch as PyPI has it, with the libraries of CUDA. A CPU build has other files.",
}


def main() -> None:
    """Write both files."""
    pins = list(_pins(_compiled(sys.argv[1])))
    for name, what in FILES.items():
        wanted = [pin for pin in pins if bool(ON_CUDA.match(pin)) == name.startswith("requirements-cuda")]
        head = HEAD.format(what=what, uv=version("uv"), python=PYTHON)
        (ROOT / "deploy" / name).write_text(head + "".join(wanted))
        sys.stdout.write(f"written: deploy/{name}, {len(wanted)} packages\n")


def _compiled(torch: str) -> str:
    """Every pin with its hashes, as uv finds them."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write(f"{torch}\n")
        constraints.flush()
        command = [
            sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--extra", "worker", "--extra", "gateway",
            "--generate-hashes", "--python-version", PYTHON, "--python-platform", PLATFORM,
            "--constraint", constraints.name, "--no-config", "--no-header", "--no-annotate", "--quiet",
        ]  # fmt: skip
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))}
        return subprocess.run(command, cwd=ROOT, env=clean, check=True, capture_output=True, text=True).stdout


def _pins(text: str) -> Iterator[str]:
    """One a package: its line, and those of its hashes."""
    yield from re.findall(r"^[a-z0-9].*\n(?:    .*\n)*", text, re.MULTILINE)


if __name__ == "__main__":
    main()
