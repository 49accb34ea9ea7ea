"""What the system that lorapool replaces claimed to save, by number of agents, and whether that agrees with itself.

The figures are quotations, none was measured. Beside each stands arithmetic: N agents on G shared GPUs instead of one
each save 1 − G/N. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True, slots=True)
class Claim:
    """``saved`` of the cost of one GPU an agent, and where it says so."""

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
        found = []
        shares = sorted({claim.saved for claim in self.claims})
        if len(shares) > 1:
            found.append("contradicts itself: " + " and ".join(f"{share:.0%}" for share in shares))
        found += [
            f"{claim.saved:.0%} is more than one GPU for all can save ({self.one_gpu:.0%})"
            for claim in self.claims
            if claim.saved > self.one_gpu + SAME
        ]
        if self.gpus > 1 and max(shares) > self.saved + SAME:
            found.append(f"needs all {self.agents} on one GPU; at this load they keep {self.gpus} busy")
        return "; ".join(found)


def rows(gpus_per_agent: float) -> list[Row]:
    """A row for every number of agents that a claim was made for."""
    made = []
    for agents, claims in CLAIMS.items():
        gpus = min(agents, max(1, ceil(agents * gpus_per_agent - 1e-9)))
        made.append(Row(agents, claims, gpus, 1 - gpus / agents))
    return made
