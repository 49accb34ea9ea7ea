"""Overview: the pool at a glance: the last hour as charts, what waits longest, what needs a hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.requests import Request

from lorapool.producer.console import pulse
from lorapool.producer.console.figures import count, percent, short, span
from lorapool.producer.console.live import Context, LivePage
from lorapool.producer.console.pulse import Beat, Chart, series
from lorapool.producer.console.workers import MOST_SHOWN, ailment
from lorapool.shared.fleet.membership import RUNNING
from lorapool.shared.malformed import number
from lorapool.shared.queue.onlooker import Glance

if TYPE_CHECKING:
    from lorapool.producer.console.desk import Desk

Workers = Sequence[Mapping[str, Any]]


class Concern(NamedTuple):
    """Something that needs a hand, and the page to go to."""

    text: str
    path: str


async def look(desk: Desk, _: Request) -> Context:
    """The hour, this moment, and the workers (the first hundred) as they say themselves."""
    client = desk.client
    glance, names = await client.onlooker.glance(), await client.worker_names()
    workers = await client.workers_of(names[:MOST_SHOWN])
    hour = pulse.beats(await client.history.minutes())
    return {
        "glance": glance,
        "charts": charts(hour, glance),
        "workers": workers,
        "worker_count": len(names),
        "tokens_per_s": sum(number(beat.get("tokens_per_s")) for beat in workers),
        "concerns": concerns(glance, workers),
        "empty": not names and not hour,
    }


def charts(hour: Sequence[Beat], glance: Glance) -> list[Chart]:
    """Six, each with the number of the last minute."""

    def chart(title: str, unit: str, latest: str, note: str, **lines: str) -> Chart:
        drawn = [(name, series(hour, field)) for name, field in lines.items()]
        return Chart(title, unit, latest, note, [beat.at_ms / 1000 for beat in hour], drawn)

    def last(field: str) -> float | None:
        return series(hour[-1:], field)[0] if hour else None

    backlog = f"waiting, {count(glance.running)} running"
    return [
        chart("Jobs ended", "a second", count(last("jobs_per_s")), "a second", jobs="jobs_per_s"),
        _wait(chart, last),
        chart("Backlog", "jobs", count(glance.waiting), backlog, waiting="waiting", running="running"),
        chart("New tokens", "a second", short(last("tokens_per_s")), "a second", tokens="tokens_per_s"),
        chart("Errors", "a minute", count(last("errors")), "failed or expired, a minute", errors="errors"),
        chart("Slot hits", "share", percent(last("hit_rate")), "had their adapter on the device", hits="hit_rate"),
    ]


def _wait(chart: Callable[..., Chart], last: Callable[[str], float | None]) -> Chart:
    """Of the jobs that ran as the minute was written down; where none did, the mean of those that ended stands for
    the median."""
    p50, mean = last("wait_p50_ms"), last("wait_mean_ms")
    if p50 is None and mean is not None:
        return chart("Wait", "ms", span(mean), "mean of jobs that ended", mean="wait_mean_ms", p95="wait_p95_ms")
    note = "median" if p50 is None else f"median, {span(last('wait_p95_ms'))} at p95"
    return chart("Wait", "ms", span(p50), note, p50="wait_p50_ms", p95="wait_p95_ms")


def concerns(glance: Glance, workers: Workers) -> list[Concern]:
    """What an operator would want to be told, the worst first."""
    found = []
    if glance.waiting and not any(beat.get("state", RUNNING) == RUNNING for beat in workers):
        found.append(Concern(f"{count(glance.waiting)} jobs wait and no worker takes any", "/workers"))
    found += [Concern(f"worker {beat['worker']}: {ails}", "/workers") for beat in workers if (ails := ailment(beat))]
    if glance.waiting and not glance.longest:
        found.append(Concern("the jobs that wait are of adapters that are paused or at their limit", "/adapters"))
    if glance.dead:
        found.append(Concern(f"{count(glance.dead)} dead letters", "/dead"))
    return found


PAGE = LivePage(
    path="/",
    template="overview.html",
    parts={
        "charts": "parts/charts.html",
        "now": "parts/now.html",
        "concerns": "parts/concerns.html",
        "longest": "parts/longest.html",
    },
    look=look,
)
