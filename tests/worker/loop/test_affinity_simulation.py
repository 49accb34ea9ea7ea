"""The claim policy on a small simulated fleet; ``python -m benchmarks.simulation`` is the large form."""

from __future__ import annotations

import pytest

from benchmarks.simulation.backlog import Backlog, SimJob
from benchmarks.simulation.cases import POLICIES, Case, Scale, run_all
from benchmarks.simulation.fleet import Shape, SimWorker
from benchmarks.simulation.policies import Arrival
from benchmarks.simulation.run import Outcome
from benchmarks.simulation.study import Torrent
from lorapool.worker.loop.affinity import Policy

FLEET = Scale(workers=20, adapters=200, duration_s=60.0, shape=Shape(rows=16, slots=8))
OVERLOAD = 1.2


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    return {name: Case(FLEET, name, OVERLOAD).run() for name in POLICIES}


def test_a_third_of_random_loads(outcomes: dict[str, Outcome]) -> None:
    """While a backlog exists, affinity loads at most a third of the adapters that random choice does."""
    assert outcomes["affinity"].loads_per_job <= outcomes["random"].loads_per_job / 3


def test_waits_are_nearly_those_of_arrival(outcomes: dict[str, Outcome]) -> None:
    """The 99th percentile of the wait is at most 1.2 times that in order of arrival."""
    assert outcomes["affinity"].wait_s(0.99) <= 1.2 * outcomes["arrival"].wait_s(0.99)


def test_starvation_bound_holds(outcomes: dict[str, Outcome]) -> None:
    """No adapter's next job waits longer than in order of arrival by more than the bound; without one, some do far."""
    bound_s, fair_s = Policy().starvation_ms / 1000, outcomes["arrival"].longest_backlogged_s
    assert outcomes["affinity"].longest_backlogged_s <= fair_s + bound_s
    assert outcomes["pure"].longest_backlogged_s > fair_s + 2 * bound_s


def test_a_crowd_lets_others_pass() -> None:
    """Beyond a quarter of its window one agent's jobs are claimed after another's that came later, until their turn."""
    backlog, agent = Backlog(), 7
    for number in range(20):
        backlog.enqueue(SimJob("a@1", agent, arrived_s=number / 100, service_s=1.0))
    for arrived_s in (0.5, 9.0):
        backlog.enqueue(SimJob("a@1", agent=8, arrived_s=arrived_s, service_s=1.0))
    claimed = [*backlog.claim(0, "a@1", 17), *backlog.claim(0, "a@1", 17)]
    assert [*[agent] * 16, 8, *[agent] * 4, 8] == [job.agent for job in claimed]


def test_a_flood_leaves_others_their_waits() -> None:
    """One agent that wants ten thousand jobs at once makes the others' 95th percentile at most 1.5 times as long."""
    torrent = Torrent(FLEET, (0.7,), {"own adapter": 50}, 10_000)
    table = torrent.table(run_all(torrent.cases()))
    assert table["own adapter, load 0.7"]["affinity"]["p95_ratio"] <= 1.5


def test_more_work_done_than_at_random(outcomes: dict[str, Outcome]) -> None:
    """Rows that wait for fewer loads compute more jobs."""
    assert outcomes["affinity"].jobs > outcomes["random"].jobs


def test_same_seed_same_outcome() -> None:
    """A run depends on its seed alone."""
    small = Scale(workers=4, adapters=20, duration_s=20.0)
    first, second = (Case(small, "affinity", OVERLOAD).run() for _ in range(2))
    assert first == second


def test_arrival_never_overtakes() -> None:
    """The rival in order of arrival takes the oldest job of all."""
    backlog, worker = Backlog(), SimWorker(0, Shape())
    for ref, at_s in (("young@1", 2.0), ("old@1", 1.0), ("middle@1", 1.5)):
        backlog.enqueue(SimJob(ref, agent=0, arrived_s=at_s, service_s=1.0))
    assert ("old@1",) == Arrival().choose(backlog, worker, 3.0).preferences
