"""stats and workers: the pool's numbers from the command line.

The counters are those that ``redis-cli HGETALL`` shows; derived columns (hit rate, means) are computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from lorapool.producer.client.client import Client
from lorapool.producer.commands import options as o
from lorapool.producer.commands.render import count, document, fields, note, seconds, table
from lorapool.producer.commands.session import run
from lorapool.shared.job import BASE_REF
from lorapool.shared.malformed import number

Counters = Mapping[str, int | float]
Ref = Annotated[str | None, typer.Argument(metavar="[REF]", help="A ref, alias or id; _base is the base model.")]


def stats(
    ref: Ref = None,
    agent: o.ByAgent = None,
    redis_url: o.RedisUrl = None,
    pool: o.Pool = None,
    as_json: o.Json = False,
) -> None:
    """Count jobs, tokens and times: of every adapter, of one, or of an agent."""
    if ref is not None and agent is not None:
        raise typer.BadParameter("give either REF or --agent, not both", param_hint="--agent")

    async def work(client: Client) -> None:
        if agent is not None:
            _one({"agent": agent}, await client.agent_stats(agent), as_json)
        elif ref is not None:
            name = None if ref == BASE_REF else ref
            _one({"ref": await client.adapters.ref(name)}, await client.stats(name), as_json)
        else:
            _all(await client.all_stats(), as_json)

    run(work, redis_url=redis_url, pool=pool, as_json=as_json)


def workers(redis_url: o.RedisUrl = None, pool: o.Pool = None, as_json: o.Json = False) -> None:
    """List live workers: device, state, rows, speed, resident adapters; and where there is any, how far loading is, how
    old the running step, what ails the worker, which adapters it cannot reach or judges."""

    async def work(client: Client) -> None:
        beats = await client.workers()
        if as_json:
            document(beats)
        elif beats:
            special = [name for name in _SPECIAL if any(beat.get(name, "") not in _NOTHING for beat in beats)]
            columns = ("worker", "device", "state", "jobs", "free", "tok/s", "resident", "seen")
            rows = ((*_worker(beat), *(_SPECIAL[name](beat.get(name, "")) for name in special)) for beat in beats)
            headings = (*columns, *(name.removesuffix("_ms").replace("_", " ") for name in special))
            table(headings, rows, right=("jobs", "free", "tok/s", "seen", "step age"))
        else:
            note("no worker of this pool is alive: lorapool-worker run")

    run(work, redis_url=redis_url, pool=pool, as_json=as_json)


def _one(what: Mapping[str, str], counters: Counters, as_json: bool) -> None:
    if as_json:
        document({**what, "counters": dict(counters)})
        return
    derived = {"slot hit rate": _rate(counters), **{f"mean {name}": _mean(counters, name) for name in _MEANS}}
    fields({**what, **{name: count(value) for name, value in counters.items()}, **derived})


def _all(by_ref: Mapping[str, Counters], as_json: bool) -> None:
    if as_json:
        document([{"ref": ref, "counters": dict(counters)} for ref, counters in by_ref.items()])
        return
    if not by_ref:
        note("no job has been submitted yet")
        return
    columns = ("ref", "jobs", "done", "failed", "tokens", "hits", "queued", "first", "total")
    table(columns, (_row(ref, counters) for ref, counters in by_ref.items()), right=columns[1:])


def _row(ref: str, counters: Counters) -> tuple[str, ...]:
    lost = sum(counters.get(name, 0) for name in ("failed", "cancelled", "expired"))
    figures = (counters.get("submitted", 0), counters.get("succeeded", 0), lost, counters.get("completion_tokens", 0))
    means = (_mean(counters, name) for name in ("queued_ms", "first_token_ms", "total_ms"))
    return ref, *map(count, figures), _rate(counters) or "-", *(mean or "-" for mean in means)


_ENDS = ("succeeded", "failed", "cancelled", "expired")
_SETTLED = ("slot_hits", "slot_misses")
_MEANS = {"queued_ms": _SETTLED, "load_ms": _SETTLED, "first_token_ms": ("succeeded",), "total_ms": _ENDS}


def _mean(counters: Counters, name: str) -> str | None:
    """Sum over the number of jobs that added to it."""
    jobs = sum(counters.get(part, 0) for part in _MEANS[name])
    return seconds(counters.get(name, 0) / jobs) if jobs else None


def _rate(counters: Counters) -> str | None:
    hits, misses = counters.get("slot_hits", 0), counters.get("slot_misses", 0)
    return f"{100 * hits / (hits + misses):.0f} %" if hits + misses else None


def _worker(beat: Mapping[str, str]) -> tuple[object, ...]:
    device = " ".join(beat[name] for name in ("device", "dtype") if beat.get(name))
    held, free = int(number(beat.get("held"))), int(number(beat.get("free_rows")))
    resident = beat.get("resident", "").split()
    return beat["worker"], device, beat.get("state"), held, free, beat.get("tokens_per_s"), resident, _age(beat)


def _step_age(milliseconds: str) -> str:
    known = milliseconds.isdecimal() and milliseconds not in _NOTHING
    return seconds(number(milliseconds)) if known else "-"


_NOTHING = ("", "0")
_SPECIAL: Mapping[str, Callable[[str], object]] = {
    "progress": str,
    "step_age_ms": _step_age,
    "ails": str,
    "not_here": str.split,
    "judging": str.split,
    "malformed": str,  # entries that it stepped over
}


def _age(beat: Mapping[str, str]) -> str:
    return seconds(number(beat["age_ms"])) if beat.get("age_ms") else "-"
