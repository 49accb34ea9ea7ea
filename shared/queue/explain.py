"""Explain: why a job is where it is, as a short stable word and a sentence for people.

Pure: the facts come from explain.lua. Words: pending ends are the states themselves; waiting jobs are ``delayed``,
``no_worker``, ``not_here``, ``paused``, ``suspect``, ``at_capacity``, ``behind`` or ``next``; running ones ``loading``,
``running``, ``stopping`` or ``worker_gone``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lorapool.shared.fleet.membership import LOADING
from lorapool.shared.job import JobState
from lorapool.shared.queue.protocol import Explanation

UNSURE_OF_REACH = frozenset({"behind", "next", "suspect"})
UNSURE_OF_WORKERS = frozenset({*UNSURE_OF_REACH, "no_worker"})
SHOWN = 8  # workers named
WORKER_GONE_MS = 5_000  # every worker comes by at least once a second


def explanation(job_id: str, facts: Mapping[str, str], loading: frozenset[str]) -> Explanation:
    """The facts of one job, judged; ``loading`` are the refs that its worker says it is loading."""
    state = JobState(facts["state"])
    if state.terminal:
        reason, message = _ended(state, facts)
    elif state is JobState.RUNNING:
        reason, message = _running(facts, loading)
    elif state is JobState.DELAYED:
        reason, message = _delayed(facts)
    else:
        reason, message = _queued(facts)
    return Explanation(job_id, state, reason, message, {name: value for name, value in facts.items() if value})


def with_workers(explained: Explanation, beats: Sequence[Mapping[str, str]]) -> Explanation:
    """The same, with what the live workers say of themselves: that one is loading, that none can reach the adapter."""
    return _with_loading(explained, beats) if explained.reason == "no_worker" else _with_reach(explained, beats)


def still_loading(beats: Sequence[Mapping[str, str]]) -> str:
    """``w1 is loading its model (40 %)``, of those that do; empty if none does."""
    loading = [beat for beat in beats if beat.get("state") == LOADING]
    lines = [f"{beat['worker']} is loading its model ({beat.get('progress') or 'begun'})" for beat in loading]
    return ", ".join(lines[:SHOWN]) + (f" and {len(lines) - SHOWN} more" if len(lines) > SHOWN else "")


def _with_loading(explained: Explanation, beats: Sequence[Mapping[str, str]]) -> Explanation:
    loading_now = still_loading(beats)
    return replace(explained, message=f"no worker takes jobs yet: {loading_now}") if loading_now else explained


def _with_reach(explained: Explanation, beats: Sequence[Mapping[str, str]]) -> Explanation:
    ref = explained.facts.get("ref", "")
    if explained.reason not in UNSURE_OF_REACH or not beats:
        return explained
    if not all(ref in beat.get("not_here", "").split() for beat in beats):
        return explained
    names = [beat["worker"] for beat in beats]
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    message = f"no live worker can reach adapter {ref} at the moment: not {shown}; they try again now and then"
    return replace(explained, reason="not_here", message=message)


def _ended(state: JobState, facts: Mapping[str, str]) -> tuple[str, str]:
    took = _seconds(_int(facts, "finished_ms") - _int(facts, "submitted_ms"))
    because = ": ".join(part for part in (facts["error"], facts["message"]) if part)
    dead = "; it is among the dead letters and can be redriven" if facts["dead"] else ""
    return state.value, f"{state} {took} after submission" + (f": {because}" if because else "") + dead


def _running(facts: Mapping[str, str], loading: frozenset[str]) -> tuple[str, str]:
    now, worker = _int(facts, "now_ms"), facts["worker"]
    since = _seconds(now - _int(facts, "started_ms"))
    if float(facts.get("lease_until_ms") or now) < now:
        return "worker_gone", f"worker {worker} has not renewed its lease; the job will be given to another"
    if facts["cancel"]:
        return "stopping", f"worker {worker} was asked to stop it ({facts['cancel']})"
    if facts["ref"] in loading and not facts["first_token_ms"]:
        return "loading", f"worker {worker} is loading adapter {facts['ref']}, for {since} at most"
    return "running", f"running on worker {worker} for {since}, attempt {facts['attempts']}"


def _delayed(facts: Mapping[str, str]) -> tuple[str, str]:
    wait = _seconds(max(0, _int(facts, "due_ms") - _int(facts, "now_ms")))
    if _int(facts, "attempts"):
        return "delayed", f"tried {facts['attempts']} times ({facts['error']}); tried again in {wait}"
    return "delayed", f"submitted with a delay; due in {wait}"


def _queued(facts: Mapping[str, str]) -> tuple[str, str]:
    ref, seen = facts["ref"], facts["worker_seen_ms_ago"]
    if facts["adapter_state"] == "paused":
        return "paused", f"adapter {ref} is paused; resume it with `lorapool resume`"
    if not seen or int(seen) > WORKER_GONE_MS:
        return (
            "no_worker",
            f"no live worker: {f'the last was seen {_seconds(int(seen))} ago' if seen else 'none was ever seen'}",
        )
    if facts["lane"] == "suspect":
        lost = _int(facts, "lost") - _int(facts, "lifted")
        beside = "alone" if lost > 1 else "beside none but those lost with it"
        return "suspect", f"lost {lost} times with its worker; it waits for one that runs such jobs apart, {beside}"
    if _int(facts, "adapter_max_inflight") and _int(facts, "adapter_running") >= _int(facts, "adapter_max_inflight"):
        return "at_capacity", f"adapter {ref} runs {facts['adapter_running']} jobs, which is its max_inflight"
    if _int(facts, "ahead"):
        return (
            "behind",
            f"behind {facts['ahead']} waiting jobs of adapter {ref}, {facts['adapter_running']} more are running",
        )
    return "next", f"first in line on adapter {ref}; workers are busy with others"


def _int(facts: Mapping[str, str], name: str) -> int:
    return int(float(facts.get(name) or 0))


def _seconds(ms: int) -> str:
    return f"{ms / 1000:.1f} s"
