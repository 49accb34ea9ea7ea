"""BusyTime: how long this worker has had its device, and how long it computed.

Steps in which no row read a prompt are summed apart: what such a step takes per token is the price of a new token,
and what the other steps take beyond that is the price of reading prompts. Knows no engine, no Redis; thread-safe
enough for one writer and readers that may be one step behind.
"""

from __future__ import annotations

import time


class BusyTime:
    """Monotone. ``had_s``: for how long the device has been ours already, while the base model was loading."""

    def __init__(self, had_s: float = 0.0) -> None:
        self._since_s = time.monotonic() - had_s
        self._busy_s = self._decode_only_s = 0.0
        self._decode_only_tokens = 0

    def add_step(self, took_s: float, prefill_tokens: int, decode_tokens: int) -> None:
        """One step that computed something."""
        self._busy_s += took_s
        if not prefill_tokens:
            self._decode_only_s += took_s
            self._decode_only_tokens += decode_tokens

    def totals(self) -> dict[str, int]:
        """Whole milliseconds and tokens, by the names that the heartbeat gives them."""
        return {
            "up_ms": round(1000 * (time.monotonic() - self._since_s)),
            "busy_ms": round(1000 * self._busy_s),
            "decode_only_ms": round(1000 * self._decode_only_s),
            "decode_only_tokens": self._decode_only_tokens,
        }
