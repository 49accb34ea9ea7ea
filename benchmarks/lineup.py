"""Who takes part in the engine's benchmark, as entries by name: ``ours.many``, ``vllm_cpu.base``, ``limit``.

The part after the dot says how many adapters are in the batch: none (base), one, as many as asked for (many), or that
number. Each figure is new tokens a second. Whoever is not called is not loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from benchmarks.limit import Limit
from benchmarks.ours import Ours
from benchmarks.peers.peft_mixed import PeftMixed
from benchmarks.peers.process import Peer, Process
from benchmarks.peers.roster import PEERS
from benchmarks.peers.serve import Task
from benchmarks.rounds import Entry, Failed
from benchmarks.workload import Workload, prompt_of
from examples.base_model import gguf_file

PEFT_DTYPES = (torch.float32, torch.bfloat16)
CURVE = (0, 1, 4, 16, 64)  # adapters in the batch, on the plot
CURVE_ROUNDS = 1  # of peers' figures that only the plot shows: they take minutes each


@dataclass(frozen=True)
class Options:
    """The sizes of one run; they go into the JSON as they are."""

    requests: int
    new_tokens: int
    adapters: int
    rank: int
    dtype: str
    rounds: int
    peers: bool = False

    def suffix(self, active: int) -> str:
        return {0: "base", 1: "one", self.adapters: "many"}.get(active, str(active))


class Lineup:
    """``peft_dtype``: in which PEFT's mixed batch is faster here, if that is known already."""

    def __init__(self, workload: Workload, options: Options, scratch: Path, peft_dtype: str | None = None) -> None:
        self.workload, self.options, self.peft_dtype = workload, options, peft_dtype
        self.answers: dict[str, list[list[int]]] = {}  # the tokens of the mixed runs
        self._scratch = scratch
        self._processes: dict[str, Process] = {}

    def entries(self) -> dict[str, Entry]:
        """In the order of their turns."""
        return dict(self._entries())

    def close(self) -> None:
        for process in self._processes.values():
            process.close()

    def _entries(self) -> Iterator[tuple[str, Entry]]:
        options, main = self.options, (0, 1, self.options.adapters)
        curve = [active for active in CURVE if options.peers and active not in main]
        for active in main:
            yield f"ours.{options.suffix(active)}", Entry(self._ours(active), options.rounds)
        yield "peft_mixed.many", Entry(self._peft(options.adapters), options.rounds, warms_itself=True)
        yield "limit", Entry(lambda: self.workload.tokens / self._limit.run(), options.rounds)
        for active in curve:
            yield f"ours.{options.suffix(active)}", Entry(self._ours(active), options.rounds)
        if options.peers:
            yield from self._peer_entries([1, *curve])

    def _peer_entries(self, curve: list[int]) -> Iterator[tuple[str, Entry]]:
        options = self.options
        for peer in PEERS.values():
            for active in (0, options.adapters):
                if (active == 0 and peer.base) or 0 < active <= peer.most:
                    yield (
                        f"{peer.name}.{options.suffix(active)}",
                        Entry(self._peer(peer, active), options.rounds, warms_itself=True),
                    )
        for active in curve:
            yield f"peft_mixed.{options.suffix(active)}", Entry(self._peft(active), CURVE_ROUNDS, warms_itself=True)
        for peer in PEERS.values():
            for active in curve:
                if peer.curve and active <= peer.most:
                    entry = Entry(self._peer(peer, active), CURVE_ROUNDS, warms_itself=True)
                    yield f"{peer.name}.{options.suffix(active)}", entry

    def _ours(self, active: int) -> Callable[[], float]:
        def run() -> float:
            seconds, tokens = self._engine.run(active)
            if active == self.options.adapters:
                self.answers["ours"] = tokens
            return self.workload.tokens / seconds

        return run

    def _peft(self, active: int) -> Callable[[], float]:
        def run() -> float:
            seconds, tokens = self._mixed.run(active)
            if active == self.options.adapters:
                self.answers["peft_mixed"] = tokens
            return self.workload.tokens / seconds

        return run

    def _peer(self, peer: Peer, active: int) -> Callable[[], float]:
        def run() -> float:
            if peer.name not in self._processes:
                self._processes[peer.name] = Process(peer, self._task(peer), self._scratch / f"{peer.name}.log")
            try:
                return self.workload.tokens / self._processes[peer.name].run(active)
            except Failed:
                self._processes.pop(peer.name).close()
                raise

        return run

    def _task(self, peer: Peer) -> Path:
        workload, options = self.workload, self.options
        folders = [str(folder) for folder in workload.adapters]
        texts = [prompt_of(number) for number in range(options.requests)]
        task = Task(
            str(workload.model), str(gguf_file()), str(self._scratch), texts, workload.prompts, workload.new_tokens,
            folders, options.rank, options.dtype,
        )  # fmt: skip
        path = self._scratch / f"{peer.name}.json"
        path.write_text(json.dumps(asdict(task)))
        return path

    @cached_property
    def _engine(self) -> Ours:
        return Ours(self.workload, self.options.dtype, self.options.rank)

    @cached_property
    def _limit(self) -> Limit:
        return Limit(self.workload, getattr(torch, self.options.dtype))

    @cached_property
    def _mixed(self) -> PeftMixed:
        self.peft_dtype = self.peft_dtype or _faster_peft(self.workload, self.options.adapters)
        return PeftMixed(self.workload, getattr(torch, self.peft_dtype))


def _faster_peft(workload: Workload, active: int) -> str:
    """In which dtype PEFT runs the mixed batch faster on this machine, tried on a few tokens."""
    few = replace(workload, new_tokens=min(8, workload.new_tokens))
    seconds = {}
    for dtype in PEFT_DTYPES:
        peft = PeftMixed(few, dtype)
        seconds[dtype] = peft.run(active)[0]
    return str(min(seconds, key=lambda dtype: seconds[dtype])).removeprefix("torch.")
