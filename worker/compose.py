"""Compose: a worker's parts over a queue and a served model, built and wired in one place.

Knows what depends on what, and nothing of what any part does.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from lorapool.shared.catalog.catalog import Catalog
from lorapool.shared.fleet.counters import Counters
from lorapool.shared.fleet.membership import Membership
from lorapool.shared.queue.worker import WorkerQueue
from lorapool.worker.adapters.validator import Validator
from lorapool.worker.config import WorkerConfig
from lorapool.worker.host import Served
from lorapool.worker.loop.adapter_loads import AdapterLoads
from lorapool.worker.loop.admission import Admission
from lorapool.worker.loop.affinity import Policy
from lorapool.worker.loop.answer_forms import AnswerForms
from lorapool.worker.loop.claimer import Claimer
from lorapool.worker.loop.clock import ServerClock
from lorapool.worker.loop.control import Control
from lorapool.worker.loop.heartbeat import Heartbeat
from lorapool.worker.loop.held_jobs import HeldJobs
from lorapool.worker.loop.lease_keeper import LeaseKeeper
from lorapool.worker.loop.peers import Peers
from lorapool.worker.loop.presence import Presence
from lorapool.worker.loop.settler import Settler
from lorapool.worker.loop.worker import Parts, Worker


def worker_of(
    config: WorkerConfig,
    queue: WorkerQueue,
    catalog: Catalog,
    served: Served,
    *,
    identity: Mapping[str, str | int | float],
    presence: Presence,
    members: Membership,
    counters: Counters,
) -> Worker:
    """A worker that is ready to run. ``identity``: what its heartbeat says of model and device."""
    name, engine, facts = config.worker_id, served.engine, served.engine.facts
    jobs, clock, validator = HeldJobs(), ServerClock(), Validator(catalog, served.check, name)
    forms = AnswerForms(served.grammars if facts.grammars else None)
    identities = {"device": facts.device, "dtype": facts.dtype}
    settler = Settler(queue, jobs, engine, clock, validator.not_here, **identities, forms=forms)
    admission = Admission(jobs, engine, settler, catalog, served.tokenizer, facts.max_model_len, forms)
    claimer = Claimer(
        queue,
        jobs,
        clock,
        Policy(config.claim_policy, starvation_ms=round(1000 * config.starvation_s), claim_size=config.claim_size),
        engine.residency,
        validator.not_here,
        worker=name,
        boot_id=secrets.token_hex(6),
        lease_ms=config.lease_ms,
        rows=config.rows,
        slots=config.slots,
    )
    heartbeat = Heartbeat(
        presence,
        AdapterLoads(counters, name),
        engine,
        jobs,
        validator,
        identity,
        rows=config.rows,
        peers=Peers(members.serving, claimer.meet, every_s=config.beat_s),
    )
    keeper = LeaseKeeper(queue, jobs, settler, clock, lease_ms=config.lease_ms)
    control = Control(queue, name, jobs, settler, admission, validator)
    parts = Parts(queue, engine, jobs, claimer, admission, settler, keeper, validator, presence, heartbeat, control)
    return Worker(name, parts, grace_s=config.grace_s)
