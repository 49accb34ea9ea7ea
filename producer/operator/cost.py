"""The bill: what GPU time cost, per request, token, agent and adapter; from counters to dollars.

Pure: counters and prices in, a ``Bill`` out. All measured figures come from what workers and scripts counted;
assumptions stand in ``Tariff``, and ``Bill.notes`` names them. Knows no Redis and no printing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from math import ceil
from typing import Any

from lorapool.producer.operator.meter import Counters, Meter
from lorapool.producer.operator.tariff import Tariff

HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Share:
    """What one agent or adapter had, and its part of the bill."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    estimated_usd: float
    hit_rate: float | None
    load_s: float

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def document(self) -> dict[str, Any]:
        return {"tokens": self.tokens, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Baseline:
    """One way to serve the same requests in the same time: GPUs held, hours of work on them, and what that costs."""

    name: str
    gpus: float
    work_hours: float
    usd: float
    usd_per_request: float
    derived_from: str


@dataclass(frozen=True)
class Bill:
    """``Bill(meter, tariff)``. Dollars cover the GPU time held, idle time too: idle is shared as busy time is."""

    meter: Meter
    tariff: Tariff = field(default_factory=Tariff)

    # -- what was counted

    def _sum(self, name: str) -> int:
        return int(sum(counters.get(name, 0) for counters in self.meter.adapters.values()))

    @property
    def requests(self) -> int:
        """Answered ones; failed, cancelled and expired ones are paid for by these."""
        return self._sum("succeeded")

    @property
    def prompt_tokens(self) -> int:
        return self._sum("prompt_tokens")

    @property
    def completion_tokens(self) -> int:
        return self._sum("completion_tokens")

    def _hours(self, name: str) -> float:
        return self.meter.usage.get(name, 0) / HOUR_MS

    @property
    def open_hours(self) -> float:
        """Hours in which any worker was there."""
        return self._hours("open_ms")

    @property
    def busy_hours(self) -> float:
        """GPU hours in which a step was computed."""
        return self._hours("busy_ms")

    @property
    def gpu_hours(self) -> float:
        """GPU hours held: as the tariff says, else the sum of the time that workers were up."""
        return self._hours("up_ms") if self.tariff.gpu_hours is None else self.tariff.gpu_hours

    @property
    def idle_share(self) -> float | None:
        return max(0.0, 1 - self.busy_hours / self.gpu_hours) if self.gpu_hours else None

    @property
    def mean_rows(self) -> float:
        """Rows of a mean step: the batch size that speeds were measured at."""
        return self.meter.usage.get("step_rows", 0) / max(1, self.meter.usage.get("steps", 0))

    # -- dollars

    @property
    def usd(self) -> float:
        return self.gpu_hours * self.tariff.gpu_usd_per_hour

    @cached_property
    def prompt_share(self) -> float | None:
        """The part of busy time that reading prompts took; None where the workers have not measured it.

        A step that only draws tokens says what a new token costs; the other steps' time beyond that is the prompts'.
        """
        usage = self.meter.usage
        busy, decode_only = usage.get("busy_ms", 0), usage.get("decode_only_ms", 0)
        drawn, alone = usage.get("decode_tokens", 0), usage.get("decode_only_tokens", 0)
        if not busy or not alone:
            return None
        decode_ms = decode_only + (drawn - alone) * decode_only / alone
        return min(1.0, max(0.0, 1 - decode_ms / busy))

    @cached_property
    def usd_per_token(self) -> tuple[float, float]:
        """Of a prompt token, of a completion token; the same for both where nothing says how they differ."""
        if self.prompt_share is None or not (self.prompt_tokens and self.completion_tokens):
            same = self.usd / max(1, self.prompt_tokens + self.completion_tokens)
            return same, same
        of_prompts = self.usd * self.prompt_share
        return of_prompts / self.prompt_tokens, (self.usd - of_prompts) / self.completion_tokens

    @property
    def usd_per_request(self) -> float:
        return self.usd / max(1, self.requests)

    def _share(self, counters: Counters) -> Share:
        prompt, completion = int(counters.get("prompt_tokens", 0)), int(counters.get("completion_tokens", 0))
        of_prompt, of_completion = self.usd_per_token
        hits, misses = counters.get("slot_hits", 0), counters.get("slot_misses", 0)
        return Share(
            int(counters.get("succeeded", 0)),
            prompt,
            completion,
            prompt * of_prompt + completion * of_completion,
            hits / (hits + misses) if hits + misses else None,
            counters.get("load_ms", 0) / 1000,
        )

    @cached_property
    def adapters(self) -> dict[str, Share]:
        return {
            ref: self._share(counters) for ref, counters in self.meter.adapters.items() if counters.get("submitted")
        }

    @cached_property
    def agents(self) -> dict[str, Share]:
        return {
            name: self._share(counters) for name, counters in self.meter.agents.items() if counters.get("submitted")
        }

    # -- the load that one GPU carries

    @property
    def busy_s_per_request(self) -> float:
        if self.tariff.capacity:
            return self.completion_tokens / max(1, self.requests) / self.tariff.capacity
        return 3600 * self.busy_hours / max(1, self.requests)

    @property
    def requests_per_hour(self) -> float | None:
        """As they came, over the hours in which any worker was there."""
        return self.requests / self.open_hours if self.open_hours else None

    @property
    def requests_per_gpu_hour(self) -> float | None:
        """With more than these a second GPU is needed."""
        return 3600 * self.tariff.full_at / self.busy_s_per_request if self.busy_s_per_request else None

    @property
    def gpus_per_agent(self) -> float:
        """The part of a GPU, at ``full_at``, that a mean agent of this pool keeps busy."""
        if not self.requests_per_hour or not self.requests_per_gpu_hour or not self.agents:
            return 0.0
        return self.requests_per_hour / len(self.agents) / self.requests_per_gpu_hour

    # -- beside it

    @cached_property
    def baselines(self) -> list[Baseline]:
        """One GPU an agent, a GPU that swaps merged models, persona prompts without LoRA, and this pool."""
        changes, swap_s = self._changes(), self._swap_s()
        swapping = self.busy_hours + changes * swap_s / 3600
        reading = self.requests * self.tariff.persona_tokens * self._prompt_hours_per_token()
        pool = self.gpu_hours / self.open_hours if self.open_hours else 0.0
        return [
            self._baseline(
                "a GPU for each agent",
                self.busy_hours,
                "one for each that asked, held as long as the pool was open",
                gpus=len(self.agents),
            ),
            self._baseline(
                "a GPU that swaps merged models",
                swapping,
                f"{changes:,.0f} changes of adapter if requests come in random order, {swap_s:.1f} s each; tokens as "
                f"fast as in the pool's mixed batches, which merged models cannot share: too kind",
            ),
            self._baseline(
                "a GPU with persona prompts, no LoRA",
                self.busy_hours + reading,
                f"{self.tariff.persona_tokens} more prompt tokens a request (assumed), at this pool's cost of reading; "
                f"says nothing of how well a prompt replaces an adapter",
            ),
            self._baseline("this pool", self.busy_hours, "measured", gpus=pool, usd=self.usd),
        ]

    def _baseline(
        self, name: str, work: float, derived_from: str, *, gpus: float | None = None, usd: float | None = None
    ) -> Baseline:
        if gpus is None:
            gpus = max(1, ceil(work / (self.open_hours * self.tariff.full_at))) if self.open_hours else 1
        if usd is None:
            usd = gpus * self.open_hours * self.tariff.gpu_usd_per_hour
        return Baseline(name, gpus, work, usd, usd / max(1, self.requests), derived_from)

    def _changes(self) -> float:
        """Expected changes of adapter from one request to the next, in random order: R (1 − Σ share²)."""
        parts = [share.requests / max(1, self.requests) for share in self.adapters.values()]
        return self.requests * (1 - sum(part * part for part in parts)) if parts else 0.0

    def _swap_s(self) -> float:
        return self.meter.model_load_ms / 1000 if self.tariff.swap_s is None else self.tariff.swap_s

    def _prompt_hours_per_token(self) -> float:
        share = self.prompt_share
        if share is None:
            return self.busy_hours / max(1, self.prompt_tokens + self.completion_tokens)
        return self.busy_hours * share / max(1, self.prompt_tokens)

    # -- as data and as sentences

    def document(self) -> dict[str, Any]:
        """The bill as JSON-ready data. ``counters`` are what it was made from: a later bill's ``--since`` subtracts
        them. The first names are those that AOS asked for."""
        prompt, completion = self.usd_per_token
        return {
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "estimated_usd": self.usd,
            "agents": {name: share.document() for name, share in self.agents.items()},
            "adapters": {ref: share.document() for ref, share in self.adapters.items()},
            "requests": self.requests,
            "usd_per_request": self.usd_per_request,
            "usd_per_million_prompt_tokens": 1e6 * prompt,
            "usd_per_million_completion_tokens": 1e6 * completion,
            "gpu": {
                "usd_per_hour": self.tariff.gpu_usd_per_hour,
                "hours_held": self.gpu_hours,
                "hours_busy": self.busy_hours,
                "hours_open": self.open_hours,
                "idle_share": self.idle_share,
                "rows_per_step": self.mean_rows,
            },
            "second_gpu": {
                "requests_per_hour": self.requests_per_hour,
                "needed_above_requests_per_hour": self.requests_per_gpu_hour,
                "busy_s_per_request": self.busy_s_per_request,
                "full_at": self.tariff.full_at,
                "gpus_per_agent": self.gpus_per_agent,
            },
            "baselines": [asdict(baseline) for baseline in self.baselines],
            "notes": self.notes,
            "counters": asdict(self.meter),
        }

    @property
    def notes(self) -> list[str]:
        """Where the figures come from, and how far they carry."""
        return [*self._held(), *self._tokens(), *self._second_gpu()]

    def _held(self) -> list[str]:
        if self.tariff.gpu_hours is not None:
            return ["GPU hours held: as you said, not measured"]
        if not self.gpu_hours:
            return ["no worker has told this pool how long it was up: there is nothing to pay"]
        return ["GPU hours held: the time workers were up, to their last heartbeat; time before and after is not in it"]

    def _tokens(self) -> list[str]:
        if self.prompt_share is None:
            return ["a prompt token is charged as a new one: no worker has measured the difference"]
        source = "what steps with prompts took beyond the price of the tokens drawn in them"
        return [f"reading prompts took {self.prompt_share:.0%} of busy time: {source}"]

    def _second_gpu(self) -> list[str]:
        above, now = self.requests_per_gpu_hour, self.requests_per_hour
        if not above or not now:
            return []
        if self.tariff.capacity:
            source = f"from the capacity you gave, {self.tariff.capacity:,.0f} new tokens/s"
        else:
            busy_ms = f"{1000 * self.busy_s_per_request:,.1f} ms of busy time a request"
            source = (
                f"from {busy_ms} at {self.mean_rows:.1f} rows a step: a floor, since a busier GPU runs larger batches"
            )
        needed = f"a second GPU is needed above {above:,.0f} requests/h ({above / now:,.1f} × now)"
        return [f"{needed}, with a GPU full at {self.tariff.full_at:.0%} busy; {source}"]
