"""The long form: ``python -m tests.chaos --seeds 2 --jobs 20000 --rounds 8``; exit status 1 if a promise broke."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys

from tests.chaos.battle import Battle, Report, Scale
from tests.chaos.plan import ROUND


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=8, help=f"of the plan's {ROUND} faults each")
    parser.add_argument(
        "--rare", type=int, default=3, help="jobs that kill engines, that kill workers, and so on: of each"
    )
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=2, help="runs; an even and an odd seed sync the file differently")
    parser.add_argument("--seed", type=int, help="the first run's; drawn if not given")
    arguments = parser.parse_args()
    scale = Scale(arguments.jobs, arguments.rounds, arguments.rare, arguments.workers)
    first = secrets.randbelow(1_000_000) if arguments.seed is None else arguments.seed
    broken = 0
    for seed in range(first, first + arguments.seeds):
        print(f"seed {seed}: {scale.jobs} jobs, {scale.rounds} rounds of faults …", flush=True)
        broken += _told(asyncio.run(Battle(seed, scale).fight()))
    return 1 if broken else 0


def _told(report: Report) -> bool:
    """Print; True if a promise broke."""
    complaints = [*report.verdict.complaints, *report.shortfalls()]
    print("\n".join(report.lines()))
    print("\n".join(complaints) or "every promise was kept", flush=True)
    return bool(complaints)


if __name__ == "__main__":
    sys.exit(main())
