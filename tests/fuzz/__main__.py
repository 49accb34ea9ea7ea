"""``python -m tests.fuzz --seconds 60 [--seed 7] [--target replies] [--case 7:123]``; status 1 for any finding."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from collections.abc import Iterable

from tests.fuzz import live
from tests.fuzz.campaign import Tally, campaign, named, table
from tests.fuzz.target import Finding, tried

LIVE = "live"
LIVE_SHARE = 0.4  # of the time


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together (60)")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="of all cases (drawn anew, and shown)")
    parser.add_argument("--target", action="append", default=[], help="only those of that name; 'live' is one (all)")
    parser.add_argument("--case", help="one case again, as a finding names it")
    return parser.parse_args()


def main() -> int:
    """The exit status."""
    given = arguments()
    if given.case and LIVE not in given.target:
        return again([finding for target in named(given.target) if (finding := tried(target, given.case))])
    print(f"seed {given.seed}", flush=True)
    targets = named(given.target)
    with_live = LIVE in given.target or not given.target
    live_s = given.seconds * (LIVE_SHARE if targets else 1.0) if with_live else 0.0
    tallies = campaign(targets, given.seconds - live_s, given.seed, progress) if targets else []
    if with_live:
        tallies.append(
            asyncio.run(live.fuzzed(live_s, given.case or given.seed, lambda tally: progress([*tallies, tally])))
        )
    print("\r" + " " * 79 + "\r" + "\n".join(table(tallies)))
    return int(any(tally.findings for tally in tallies))


def again(findings: Iterable[Finding]) -> int:
    found = list(findings)
    for finding in found:
        print(f"{finding.target}: {finding.kind}: {finding.what}\n  case {finding.case}")
    return int(bool(found))


def progress(tallies: Iterable[Tally]) -> None:
    """On a terminal, one line that changes."""
    if sys.stdout.isatty():
        all_of = list(tallies)
        cases, found = sum(tally.cases for tally in all_of), sum(len(tally.findings) for tally in all_of)
        latest = max(all_of, key=lambda tally: tally.seconds).target
        print(f"\r{cases:,} cases, {found} findings; {latest}".ljust(79), end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
