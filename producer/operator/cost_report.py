"""The bill as JSON-ready data, and what a reader must know of it, as sentences.

The first names of the JSON are those that AOS asked for: total, prompt and completion tokens, estimated_usd, agents.
Pure.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lorapool.producer.operator.cost import Bill, Share


def document(bill: Bill) -> dict[str, Any]:
    """``counters`` are what it was made from: a later bill's ``--since`` subtracts them."""
    prompt, completion = bill.usd_per_token
    return {
        "total_tokens": bill.prompt_tokens + bill.completion_tokens,
        "prompt_tokens": bill.prompt_tokens,
        "completion_tokens": bill.completion_tokens,
        "estimated_usd": bill.usd,
        "agents": {name: _share(share) for name, share in bill.agents.items()},
        "adapters": {ref: _share(share) for ref, share in bill.adapters.items()},
        "requests": bill.requests,
        "usd_per_request": bill.usd_per_request,
        "usd_per_million_prompt_tokens": 1e6 * prompt,
        "usd_per_million_completion_tokens": 1e6 * completion,
        "gpu": {
            "usd_per_hour": bill.tariff.gpu_usd_per_hour,
            "hours_held": bill.gpu_hours,
            "hours_busy": bill.busy_hours,
            "hours_open": bill.open_hours,
            "idle_share": bill.idle_share,
            "rows_per_step": bill.mean_rows,
        },
        "second_gpu": {
            "requests_per_hour": bill.requests_per_hour,
            "needed_above_requests_per_hour": bill.requests_per_gpu_hour,
            "busy_s_per_request": bill.busy_s_per_request,
            "full_at": bill.tariff.full_at,
        },
        "baselines": [asdict(baseline) for baseline in bill.baselines],
        "claimed": [{**asdict(row), "verdict": row.verdict} for row in bill.claimed],
        "notes": notes(bill),
        "counters": asdict(bill.meter),
    }


def _share(share: Share) -> dict[str, Any]:
    return {"tokens": share.tokens, **asdict(share)}


def notes(bill: Bill) -> list[str]:
    """Where the figures come from, and how far they carry."""
    return [*_held(bill), *_tokens(bill), *_second_gpu(bill)]


def _held(bill: Bill) -> list[str]:
    if bill.tariff.gpu_hours is not None:
        return ["GPU hours held: as you said, not measured"]
    if not bill.gpu_hours:
        return ["no worker has told this pool how long it was up: there is nothing to pay"]
    return ["GPU hours held: the time workers were up, to their last heartbeat; time before and after is not in it"]


def _tokens(bill: Bill) -> list[str]:
    if bill.prompt_share is None:
        return ["a prompt token is charged as a new one: no worker has measured the difference"]
    source = "what steps with prompts took beyond the price of the tokens drawn in them"
    return [f"reading prompts took {bill.prompt_share:.0%} of busy time: {source}"]


def _second_gpu(bill: Bill) -> list[str]:
    above, now = bill.requests_per_gpu_hour, bill.requests_per_hour
    if not above or not now:
        return []
    if bill.tariff.capacity:
        source = f"from the capacity you gave, {bill.tariff.capacity:,.0f} new tokens/s"
    else:
        busy_ms = f"{1000 * bill.busy_s_per_request:,.1f} ms of busy time a request at {bill.mean_rows:.1f} rows a step"
        source = (
            f"from {busy_ms}: a floor, since a busier GPU runs larger batches; --capacity takes a benchmark's figure"
        )
    needed = f"a second GPU is needed above {above:,.0f} requests/h ({above / now:,.1f} × now)"
    return [f"{needed}, with a GPU full at {bill.tariff.full_at:.0%} busy; {source}"]
