"""Fsck: the kinds of damage that a check of one partition knows, and what it does about each.

Damage comes from outside the protocol: a failover that lost writes, a key deleted by hand, an eviction. The work is
done by fsck.lua; this reads its answer. Counters are history and are never repaired.
"""

from __future__ import annotations

from lorapool.shared.malformed import required
from lorapool.shared.queue.protocol import Checked, Finding

REPAIRS = {
    "queued_job_without_entry": "put back into its stream",
    "delayed_job_without_due": "put back among the delayed, at its due time",
    "running_job_without_lease": "given a lease: its worker renews it, or it goes to another",
    "suspect_without_place": "put back among the suspects",
    "live_job_with_ttl": "kept until it ends",
    "deadline_unwatched": "watched again",
    "payload_missing": "failed for good: its request was lost",
    "ended_job_without_ttl": "given the time to live of a result",
    "payload_of_ended_job": "deleted",
    "payload_without_ttl": "given the time to live of a dead letter",
    "payload_without_job": "deleted",
    "key_without_ttl": "given a time to live",
    "stray_in_delayed": "taken out",
    "stray_in_suspects": "taken out",
    "stray_in_deadlines": "taken out",
    "stray_in_ready": "taken out",
    "stray_in_served": "taken out",
    "lease_without_running_job": "taken out",
    "entry_without_job": "taken out of the stream",
    "stray_entry": "taken out of the stream",
    "waiting_gauge": "counted anew",
    "running_gauge": "counted anew",
    "held_gauge": "counted anew",
    "window_gauge": "counted anew",
    "backlog_not_ready": "made claimable",
    "ready_without_backlog": "made not claimable",
    "served_membership": "put right",
}


def checked(answer: list[bytes]) -> Checked:
    """The answer of fsck.lua. Raises MalformedEntry."""
    return required("what a check found", lambda: _checked(answer))


def _checked(answer: list[bytes]) -> Checked:
    cursor, *words = (word.decode(errors="replace") for word in answer)
    pairs = zip(words[::2], words[1::2], strict=True)
    return Checked(
        tuple(Finding(damage, subject, REPAIRS.get(damage, "put right")) for damage, subject in pairs), cursor
    )
