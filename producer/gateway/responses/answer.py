"""The response as OpenAI writes it: its head from the record, its status and output from how the job stands.

Pure: plain data in, JSON out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lorapool.producer.gateway.errors import CALLERS_FAULT
from lorapool.producer.gateway.responses.items import Item
from lorapool.shared.job import FinishReason, JobState, Result, TokenLogprob
from lorapool.shared.responses.response_record import ResponseRecord
from lorapool.shared.tools import ToolCall

PREFIX = "resp_"
_STATUS = {
    JobState.DELAYED: "queued",
    JobState.QUEUED: "queued",
    JobState.RUNNING: "in_progress",
    JobState.SUCCEEDED: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
    JobState.EXPIRED: "failed",
}
LATE = "it was not answered in time"


def response_id(job_id: str) -> str:
    """Of a bare job id."""
    return f"{PREFIX}{job_id}"


def head(record: ResponseRecord) -> dict[str, Any]:
    """What a response says whatever became of it, ``status`` excepted."""
    return {
        "id": response_id(record.id),
        "object": "response",
        "created_at": record.created_ms // 1000,
        "background": record.background,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "output": [],
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
        **record.echo,
    }


def unfinished(record: ResponseRecord, state: JobState) -> dict[str, Any]:
    """One that waits, runs, or was cancelled."""
    return {**head(record), "status": _STATUS[state]}


def failed(record: ResponseRecord, error: str, message: str) -> dict[str, Any]:
    """One whose job failed with that error, or expired. What is the caller's to mend is an invalid_prompt."""
    code = "invalid_prompt" if error in CALLERS_FAULT else "server_error"
    return {**head(record), "status": "failed", "error": {"code": code, "message": message}}


def finished(record: ResponseRecord, result: Result, output: list[Item] | None = None) -> dict[str, Any]:
    """One that was answered; ``output`` is as it was streamed, None as the result has it."""
    cut = result.finish_reason is FinishReason.LENGTH
    told: dict[str, Any] = {
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": output_of(record.id, result) if output is None else output,
        "usage": _usage(result),
    }
    if not cut:
        told["completed_at"] = (record.created_ms + (result.timings.total_ms or 0)) // 1000
    return {**head(record), **told}


def output_of(job_id: str, result: Result) -> list[Item]:
    """The items of an answer: its text, if there is any or nothing else, then its calls."""
    cut = result.finish_reason is FinishReason.LENGTH
    items: list[Item] = []
    if result.text or not result.tool_calls:
        items.append(message(job_id, result.text, result.token_logprobs or (), "incomplete" if cut else "completed"))
    return items + [function_call(job_id, at, call) for at, call in enumerate(result.tool_calls)]


def message(job_id: str, text: str, logprobs: Sequence[TokenLogprob], status: str) -> Item:
    """The item that a text is."""
    part = output_text(text, logprobs)
    content = [] if status == "in_progress" else [part]
    return {"id": f"msg_{job_id}", "type": "message", "role": "assistant", "status": status, "content": content}


def output_text(text: str, logprobs: Sequence[TokenLogprob]) -> Item:
    """The part that a text is."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": [logprob(one) for one in logprobs]}


def function_call(job_id: str, at: int, call: ToolCall, status: str = "completed") -> Item:
    """The item that the answer's call number ``at`` is."""
    told = {"call_id": call.id, "name": call.name, "arguments": call.arguments}
    return {"id": f"fc_{job_id}_{at}", "type": "function_call", "status": status, **told}


def logprob(token: TokenLogprob) -> Item:
    """Of a token at its place, with the likeliest there."""
    return {**_one(token), "top_logprobs": [_one(other) for other in token.top]}


def _one(token: TokenLogprob) -> Item:
    return {"token": token.text.decode(errors="replace"), "bytes": list(token.text), "logprob": token.logprob}


def _usage(result: Result) -> dict[str, Any]:
    put_in, put_out = result.usage.prompt_tokens, result.usage.completion_tokens
    return {
        "input_tokens": put_in,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": put_out,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": put_in + put_out,
    }
