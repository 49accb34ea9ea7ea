"""The faults of one run, drawn from a seed: which, in what order, upon whom, for how long. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

Kind = Literal[
    "kill", "freeze", "late write", "terminate", "kill engine", "hang engine", "sick device", "full device", "no mount",
    "hostile", "restart", "refusal", "clock jump", "malformed", "client kill", "delay", "cut", "half-open",
    "lost reply",
]  # fmt: skip
SHARES: dict[Kind, int] = {  # of one round; the short form is one round
    "kill": 2,  # SIGKILL of a worker
    "freeze": 2,  # SIGSTOP of a worker past its lease, then SIGCONT
    "late write": 1,  # a worker's settlements arrive once another one runs its jobs
    "terminate": 2,  # SIGTERM of a worker, a new one beside it
    "kill engine": 2,  # SIGKILL of the process of a worker's engine
    "hang engine": 1,  # SIGSTOP of it: no step ends any more
    "sick device": 1,  # fails at everything, until its worker has left and another took its place
    "full device": 1,  # has memory for two rows, for a while
    "no mount": 1,  # a worker cannot reach some adapters, for a while
    "hostile": 3,  # an adapter made to harm is registered
    "restart": 2,  # of the server, with its append-only file
    "refusal": 1,  # the server takes nothing: too few replicas, full disk, busy
    "clock jump": 1,  # the server's clock goes an hour ahead, and comes back
    "malformed": 2,  # entries that nobody can read, in keys that all read
    "client kill": 2,  # the server closes all connections
    "delay": 2,  # each chunk of a peer's connections, either way
    "cut": 3,  # a peer's connections are reset
    "half-open": 2,  # a peer's connections stay and are silent
    "lost reply": 4,  # a peer's next scripts run, their replies vanish
}
ROUND = sum(SHARES.values())
ON_PEERS: frozenset[Kind] = frozenset({"delay", "cut", "half-open", "lost reply"})
LONG: frozenset[Kind] = frozenset({"hostile"})  # take long to pass, and so come first in their round
LEASE_S = 1.0
STEP_TIMEOUT_S = 4.0  # of workers: long for steps of 20 ms, on a machine that is busy with other things


@dataclass(frozen=True, slots=True)
class Fault:
    """``on_worker``: a worker, else a client. ``pick`` in [0, 1) says which. ``seconds``: how long, where it lasts.
    ``number`` counts the faults of its kind."""

    kind: Kind
    number: int
    on_worker: bool
    pick: float
    seconds: float
    same_name: bool  # a killed worker's successor has its name


def draw(seed: int, rounds: int) -> list[Fault]:
    """``rounds`` times the shares, each round shuffled."""
    random = Random(seed)
    faults: list[Fault] = []
    for turn in range(rounds):
        kinds = [(kind, turn * share + number) for kind, share in SHARES.items() for number in range(share)]
        random.shuffle(kinds)
        kinds.sort(key=lambda kind: kind[0] not in LONG)
        faults += [_fault(kind, number, random) for kind, number in kinds]
    return faults


def _fault(kind: Kind, number: int, random: Random) -> Fault:
    seconds: dict[Kind, float] = {
        "freeze": random.uniform(1.3, 2.0) * LEASE_S,
        "restart": random.uniform(0.0, 0.2),
        "refusal": random.uniform(1.0, 2.0),
        "full device": random.uniform(1.0, 3.0),
        "no mount": random.uniform(1.0, 3.0),
        "clock jump": random.uniform(0.5, 2.0),
    }
    on_worker = random.random() < 0.7
    lasts_s = seconds.get(kind, random.uniform(0.2, 1.0))
    return Fault(kind, number, on_worker, random.random(), lasts_s, same_name=random.random() < 0.5)
