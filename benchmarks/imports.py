"""How long does an agent wait for ``import lorapool.producer``?

``python -m benchmarks.imports --out FILE.json``: fresh interpreters, in turn with one that imports nothing, so that the
figure is the import alone. The promise is under half a second, and no torch.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import hardware

IMPORT = "import lorapool.producer"
HEAVY = "import sys, lorapool.producer; print(*({'torch', 'transformers', 'peft', 'numpy'} & set(sys.modules)))"


def main(
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")],
    rounds: Annotated[int, typer.Option(min=1, help="Counted rounds, after one warm-up.")] = 7,
) -> None:
    """Measure, print one line, write the JSON."""
    seconds(IMPORT)
    imported, bare = zip(*((seconds(IMPORT), seconds("")) for _ in range(rounds)), strict=True)
    import_ms = 1000 * (median(imported) - median(bare))
    report = {
        "import_ms": import_ms,
        "low_ms": 1000 * (min(imported) - median(bare)),
        "high_ms": 1000 * (max(imported) - median(bare)),
        "heavy_modules": _output(HEAVY).split(),
        "hardware": hardware.describe(),
    }
    out.write_text(json.dumps(report, indent=2) + "\n")
    Console().print(
        f"import lorapool.producer: {import_ms:.0f} ms "
        f"({report['low_ms']:.0f} to {report['high_ms']:.0f}); written to {out}"
    )


def seconds(code: str) -> float:
    """Wall time of one interpreter that runs ``code``."""
    start = time.perf_counter()
    _output(code)
    return time.perf_counter() - start


def _output(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    typer.run(main)
