"""What AOS, which lorapool replaces, claims that sharing a GPU saves, held against arithmetic and a bill of yours.

The figures are quotations; none was measured. Beside each stands arithmetic: N agents on G shared GPUs instead of one
each save 1 − G/N.

    lorapool cost --json > bill.json
    python -m benchmarks.claims bill.json
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Claim:
    """``saved`` of the cost of one GPU an agent, and where AOS says so."""

    saved: float
    where: str


CLAIMS: dict[int, tuple[Claim, ...]] = {
    3: (Claim(0.67, "table of parallel agents"), Claim(0.90, "README, $6,000 saved")),
    4: (Claim(0.75, "its example's arithmetic"), Claim(0.90, "the same example's conclusion")),
    5: (Claim(0.80, "table of parallel agents"), Claim(0.75, "10 GPU seconds become 2.5")),
    10: (Claim(0.90, "comparison of 10 with 100 agents"),),
    50: (Claim(0.96, "$144,000 saved of $150,000, on two GPUs"),),
    100: (Claim(0.99, "$30 an agent on one GPU"),),
}
SAME = 0.006  # two roundings of one share


@dataclass(frozen=True, slots=True)
class Row:
    """N agents. ``gpus``: what this pool's load per agent asks for; ``saved``: 1 − gpus/N."""

    agents: int
    claims: tuple[Claim, ...]
    gpus: int
    saved: float

    @property
    def one_gpu(self) -> float:
        """The most that can be saved: all on one GPU."""
        return 1 - 1 / self.agents

    @property
    def verdict(self) -> str:
        """Where the claims contradict themselves or arithmetic; empty where they do not."""
        problems = []
        shares = sorted({claim.saved for claim in self.claims})
        if len(shares) > 1:
            problems.append("contradicts itself: " + " and ".join(f"{share:.0%}" for share in shares))
        problems += [
            f"{claim.saved:.0%} is more than one GPU for all can save ({self.one_gpu:.0%})"
            for claim in self.claims
            if claim.saved > self.one_gpu + SAME
        ]
        if self.gpus > 1 and max(shares) > self.saved + SAME:
            problems.append(f"needs all {self.agents} on one GPU; at this load they keep {self.gpus} busy")
        return "; ".join(problems)


def rows(gpus_per_agent: float) -> list[Row]:
    """A row for every number of agents that a claim was made for."""
    table = []
    for agents, claims in CLAIMS.items():
        gpus = min(agents, max(1, ceil(agents * gpus_per_agent - 1e-9)))
        table.append(Row(agents, claims, gpus, 1 - gpus / agents))
    return table


def show(table: list[Row]) -> None:
    """Print claims, the most that one GPU can save, and what is saved at the bill's load."""
    columns = ("agents", "claimed", "one GPU", "at this load", "GPUs", "what of it")
    shown = Table(*columns, title="Saved against a GPU for each agent")
    for row in table:
        claimed = ", ".join(f"{claim.saved:.0%}" for claim in row.claims)
        shown.add_row(str(row.agents), claimed, f"{row.one_gpu:.0%}", f"{row.saved:.0%}", str(row.gpus), row.verdict)
    Console().print(shown)


if __name__ == "__main__":
    bill = json.loads(Path(sys.argv[1]).read_text())
    show(rows(bill["second_gpu"]["gpus_per_agent"]))
