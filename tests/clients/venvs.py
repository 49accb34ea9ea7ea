"""A virtual environment for each client, as its users have it: made once, kept below the cache folder.

``python -m tests.clients.venvs`` makes all of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = {
    "openai": ("openai==3.57.0",),
    "openai_agents": ("openai-agents==0.24.0",),
    "pydantic_ai": ("pydantic-ai-slim[openai]==2.68.0",),
    "langgraph": ("langchain-openai==1.7.4", "langgraph==1.2.24"),
    "litellm": ("litellm==1.110.2",),
    "huggingface_hub": ("huggingface_hub==2.4.0",),
    "lorax": ("lorax-client==0.6.3", "requests"),  # which it imports and does not name; its other pins are old
}
PIP = ("-m", "pip", "--disable-pip-version-check", "-q")


def python_of(client: str) -> str:
    """The interpreter of that client's environment, which is made if it is not there."""
    folder, requirements = _root() / client, REQUIREMENTS[client]
    python, done = folder / "bin" / "python", folder / ".requirements"
    if not done.exists() or done.read_text() != "\n".join(requirements):
        print(f"setting up {folder}: {', '.join(requirements)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, *PIP, "install", *requirements], check=True)
        done.write_text("\n".join(requirements))
    return str(python)


def _root() -> Path:
    cache = os.environ.get("LORAPOOL_CACHE", "~/.cache/lorapool")
    return Path(cache).expanduser() / "client-venvs"


if __name__ == "__main__":
    for name in REQUIREMENTS:
        python_of(name)
