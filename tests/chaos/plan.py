"""The faults of one run, drawn from a seed: which, in what order, upon whom, for how long. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

Kind = Literal[
    "kill", "freeze", "late write", "terminate", "restart", "client kill", "delay", "cut", "half-open", "lost reply"
]
SHARES: dict[Kind, int] = {  # of one round; the short form is one round
    "kill": 3,  # SIGKILL of a worker
    "freeze": 2,  # SIGSTOP of a worker past its lease, then SIGCONT
    "late write": 1,  # a worker's settlements arrive once another one runs its jobs
    "terminate": 2,  # SIGTERM of a worker, a new one beside it
    "restart": 2,  # of the server, with its append-only file
    "client kill": 3,  # the server closes all connections
    "delay": 2,  # each chunk of a peer's connections, either way
    "cut": 4,  # a peer's connections are reset
    "half-open": 2,  # a peer's connections stay and are silent
    "lost reply": 6,  # a peer's next scripts run, their replies vanish
}
ROUND = sum(SHARES.values())
ON_WORKERS = frozenset({"kill", "freeze", "late write", "terminate"})
ON_PEERS = frozenset({"delay", "cut", "half-open", "lost reply"})
LEASE_S = 1.0


@dataclass(frozen=True, slots=True)
class Fault:
    """``on_worker``: a worker, else a client. ``pick`` in [0, 1) says which. ``seconds``: how long, where it lasts."""

    kind: Kind
    on_worker: bool
    pick: float
    seconds: float
    same_name: bool  # a killed worker's successor has its name


def draw(seed: int, rounds: int) -> list[Fault]:
    """``rounds`` times the shares, shuffled."""
    random = Random(seed)
    kinds = [kind for kind, share in SHARES.items() for _ in range(share * rounds)]
    random.shuffle(kinds)
    return [_fault(kind, random) for kind in kinds]


def _fault(kind: Kind, random: Random) -> Fault:
    seconds = {"freeze": random.uniform(1.3, 2.0) * LEASE_S, "restart": random.uniform(0.0, 0.2)}
    on_worker = kind in ON_WORKERS or random.random() < 0.7
    lasts_s = seconds.get(kind, random.uniform(0.2, 1.0))
    return Fault(kind, on_worker, random.random(), lasts_s, same_name=random.random() < 0.5)
