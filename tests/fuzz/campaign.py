"""Campaign: targets in turn for a while, their cases counted, their findings kept, a table at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.fuzz import calls, checkpoints, names, options, prompts, requests, stored, timetables
from tests.fuzz.target import Finding, Target, not_frozen, tried

TARGETS: tuple[Target, ...] = tuple(
    target
    for module in (stored, checkpoints, prompts, calls, names, requests, timetables, options)
    for target in module.TARGETS
)
SLICE_S = 0.25  # of one target's turn
MOST_FINDINGS = 5  # of a target: then it has had its say


@dataclass
class Tally:
    """What a target came to; findings that say the same are one."""

    target: str
    cases: int = 0
    seconds: float = 0.0
    findings: dict[str, Finding] = field(default_factory=dict)

    def add(self, finding: Finding | None) -> None:
        self.cases += 1
        if finding is not None:
            self.findings.setdefault(finding.kind, finding)


def named(names: Sequence[str]) -> list[Target]:
    """The targets whose name is, or begins with, one of these; all if none is given."""
    return [target for target in TARGETS if not names or any(f"{target.name}.".startswith(f"{one}.") for one in names)]


def campaign(
    targets: Sequence[Target], seconds: float, seed: str, on_turn: Callable[[Iterable[Tally]], None] = lambda _: None
) -> list[Tally]:
    """Every target in turn, a slice of time each, until the time is up; each has at least one turn."""
    tallies = {target.name: Tally(target.name) for target in targets}
    give_up_at = time.monotonic() + seconds
    numbers = {target.name: _numbers(seed) for target in targets}
    for target in targets:
        target.prepare()
    first = True
    while first or time.monotonic() < give_up_at:
        for target in targets:
            _turn(target, tallies[target.name], numbers[target.name], min(SLICE_S, seconds / len(targets)))
            on_turn(tallies.values())
            if not first and time.monotonic() >= give_up_at:
                break
        first = False
    return list(tallies.values())


def _numbers(seed: str) -> Iterator[str]:
    number = 0
    while True:
        yield f"{seed}:{number}"
        number += 1


def _turn(target: Target, tally: Tally, seeds: Iterator[str], seconds: float) -> None:
    if len(tally.findings) >= MOST_FINDINGS:
        return
    began = time.monotonic()
    with not_frozen(seconds + target.limit_s):
        while time.monotonic() - began < seconds:
            tally.add(tried(target, next(seeds)))
    tally.seconds += time.monotonic() - began


def table(tallies: Sequence[Tally]) -> Iterator[str]:
    """The lines of the final table, and of each finding what repeats it."""
    yield f"{'target':20} {'cases':>9} {'a second':>9} {'findings':>9}"
    for tally in tallies:
        rate = tally.cases / tally.seconds if tally.seconds else 0.0
        yield f"{tally.target:20} {tally.cases:9,} {rate:9,.0f} {len(tally.findings):9}"
    yield f"{'all':20} {sum(tally.cases for tally in tallies):9,} {'':9} {sum(len(t.findings) for t in tallies):9}"
    for tally in tallies:
        for finding in tally.findings.values():
            yield f"\n{finding.target}: {finding.kind}: {finding.what}\n  case {finding.case}\n  {finding.command}"
