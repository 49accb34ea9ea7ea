"""What every answer says in OpenAI's words: why it ended, what it cost, which weights wrote it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lorapool.shared.job import FinishReason, Result

FINGERPRINT_DIGITS = 12


def finish_reason(result: Result) -> str:
    """Calls of tools are said before an end of the model's own, and an end for want of tokens before all."""
    if result.finish_reason is FinishReason.LENGTH:
        return "length"
    return "tool_calls" if result.tool_calls else "stop"


def fingerprint(digest: str) -> str:
    """``system_fingerprint``: the adapter's content; that of the base model is the pool's."""
    return f"fp_{digest[:FINGERPRINT_DIGITS] or 'base'}"


def usage_of(results: Sequence[Result], *, prompts: int) -> dict[str, Any]:
    """The tokens of one request's answers; several answers to one prompt count it once."""
    each = max(1, len(results) // max(1, prompts))
    prompt = sum(result.usage.prompt_tokens for result in results[::each])
    completion = sum(result.usage.completion_tokens for result in results)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def proof_of(result: Result) -> dict[str, Any]:
    """Which weights, which worker, which attempt, and how long it waited."""
    return {
        "job_id": result.job_id,
        "adapter": result.adapter,
        "digest": result.digest,
        "worker": result.worker,
        "attempt": result.attempts,
        "queue_ms": result.timings.queued_ms,
        "load_ms": result.timings.load_ms,
    }


def proof_headers(results: Sequence[Result]) -> dict[str, str]:
    """The same of the first answer, as ``x-lorapool-*``; job ids of all."""
    proof = {name: value for name, value in proof_of(results[0]).items() if value is not None}
    headers = {f"x-lorapool-{name.replace('_', '-')}": str(value) for name, value in proof.items()}
    headers["x-lorapool-job-id"] = ",".join(result.job_id for result in results)
    return headers
