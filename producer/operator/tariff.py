"""Tariff: prices of a bill, and what no counter can know. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from lorapool.shared.errors import InvalidRequest

GPU_USD_PER_HOUR = 4.11  # $3,000 a month: the figure that the system we replace calculates with


@dataclass(frozen=True, slots=True)
class Tariff:
    """Prices, and what no counter can know. Raises InvalidRequest for what makes no sense.

    ``gpu_hours``: held, where that is more than workers were up (None: as measured). ``full_at``: busy share at which
    a GPU counts as full. ``capacity``: new tokens a second of one full GPU, from a benchmark of yours (None: the speed
    while busy, at the batch sizes seen). ``persona_tokens`` and ``swap_s`` describe the two rivals that share one GPU:
    the prompt that would stand in for an adapter, and the time to swap a merged model (None: the worker's own time to
    load the base model).
    """

    gpu_usd_per_hour: float = GPU_USD_PER_HOUR
    gpu_hours: float | None = None
    full_at: float = 0.8
    capacity: float | None = None
    persona_tokens: int = 200
    swap_s: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            may_be_zero = name in {"persona_tokens", "swap_s", "gpu_usd_per_hour"}
            if value is not None and not (0 <= value < float("inf") and (value or may_be_zero)):
                raise InvalidRequest(
                    f"{name} = {value!r}: expected a number {'of 0 or more' if may_be_zero else 'above 0'}"
                )
        if self.full_at > 1:
            raise InvalidRequest(f"full_at = {self.full_at!r}: expected a share, above 0 and at most 1")
