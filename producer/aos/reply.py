"""What a request of the AOS names comes back as: a dict with an answer, or one with an error, never both.

An error has no ``generated_text``: reading it there raises a KeyError that says what went wrong. Knows the keys alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from lorapool.producer.aos.errors import error_name
from lorapool.shared.job import BASE_REF, Result


class Failure(dict[str, Any]):
    """``error`` (what went wrong), ``error_type`` (its stable name), ``success`` False, and whom it concerns."""

    def __missing__(self, key: str) -> Any:
        raise KeyError(f"{key}: this request failed and has none: {self['error']}")


def answer(
    result: Result, *, prompt: str | None, role: str | None, base_model: str, latency_ms: float, used_base: bool
) -> dict[str, Any]:
    """The keys of AOS, then ours. Times are ms; those but ``latency_ms``, which is the caller's, are the pool's."""
    adapter_id, _, version = result.adapter.partition("@")
    timings = result.timings
    queue_ms, load_ms, first_ms, total_ms = (
        timings.queued_ms or 0, timings.load_ms or 0, timings.first_token_ms, timings.total_ms or 0,
    )  # fmt: skip
    return {
        "request_id": result.job_id,
        "adapter_id": adapter_id,
        "prompt": prompt,
        "generated_text": result.text,
        "tokens_generated": result.usage.completion_tokens,
        "latency_ms": latency_ms,
        "adapter_loaded": result.resident,
        "timestamp": datetime.now(UTC).isoformat(),
        "success": True,
        "agent_role": role,
        "adapter_version": version if result.adapter != BASE_REF else None,
        "adapter_digest": result.digest,
        "base_model": base_model,
        "used_base": used_base,
        "worker_id": result.worker,
        "prompt_tokens": result.usage.prompt_tokens,
        "finish_reason": result.finish_reason.value,
        "attempt": result.attempts,
        "queue_ms": queue_ms,
        "load_ms": load_ms,
        "ttft_ms": first_ms,
        "generate_ms": max(0, total_ms - queue_ms - load_ms),
    }


def about(request: object) -> dict[str, Any]:
    """Whom an item of a batch concerns, as far as it says so."""
    given = request if isinstance(request, Mapping) else {}
    return {name: given.get(name) for name in ("agent_role", "adapter_id", "prompt")}


def failure(error: BaseException, concerns: Mapping[str, Any]) -> Failure:
    """A fresh dict for each failed request; ``concerns`` as ``about`` says."""
    known = {name: value for name, value in concerns.items() if value is not None}
    return Failure(error=str(error), error_type=error_name(error), success=False, **known)
