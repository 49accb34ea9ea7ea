from __future__ import annotations

import subprocess
import sys


def test_the_agents_side_imports_no_torch() -> None:
    """Everything an agent can import, imported, loads none of the worker's libraries."""
    code = (
        "import pkgutil, sys, importlib, lorapool.shared, lorapool.producer\n"
        "for package in (lorapool.shared, lorapool.producer):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "heavy = {'torch', 'transformers', 'peft', 'safetensors', 'numpy'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
        "assert 'lorapool.shared.queue.client' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (0, "") == (done.returncode, done.stderr)
