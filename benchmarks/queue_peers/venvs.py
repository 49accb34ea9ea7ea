"""A virtual environment for each peer, made once and kept: peers disagree on the redis client they need."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from benchmarks import venvs


@dataclass(frozen=True)
class Peer:
    """``module`` below benchmarks.queue_peers, run by ``venv``. ``slow``: needs fewer jobs for a steady figure;
    ``polls``: an answer takes about a second, so that a few tell."""

    name: str
    venv: str
    requirements: tuple[str, ...]
    slow: bool = False
    polls: bool = False

    @property
    def module(self) -> str:
        return f"benchmarks.queue_peers.{self.name}"


ARQ = ("arq", "hiredis")
DRAMATIQ = ("dramatiq[redis]", "hiredis")
PEERS = {
    peer.name: peer
    for peer in (
        Peer("arq", "arq", ARQ, slow=True),
        Peer("arq_eager", "arq", ARQ, slow=True),
        Peer(
            "saq", "saq", ("saq[redis]", "typing_extensions", "hiredis"), polls=True
        ),  # imports it, does not require it
        Peer("dramatiq", "dramatiq", DRAMATIQ),
        Peer("dramatiq_8", "dramatiq", DRAMATIQ),
        Peer("bullmq", "bullmq", ("bullmq", "redis<8", "hiredis")),  # its QueueEvents cannot read redis 8's replies
    )
}


def python_of(peer: Peer) -> str:
    """The interpreter of the peer's venv, which is made if it is not there."""
    return venvs.python_of(peer.venv, peer.requirements)


def versions(peer: Peer) -> dict[str, str]:
    """What its venv has of the packages asked for."""
    listed = subprocess.run(
        [python_of(peer), "-m", "pip", "list", "--format=freeze"], check=True, capture_output=True, text=True
    ).stdout
    pairs = dict(line.split("==", 1) for line in listed.splitlines() if "==" in line)
    return {name: pairs[name] for name in (peer.venv, "redis", "hiredis") if name in pairs}
