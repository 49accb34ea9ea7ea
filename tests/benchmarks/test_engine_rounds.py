"""The engine's benchmark around its runs: rounds in turn, going on where a call stopped, and the plot's data."""

from __future__ import annotations

from benchmarks.engine_plot import curves
from benchmarks.rounds import Entry, Failed, run


def _entries(calls: list[str], **rounds: int) -> dict[str, Entry]:
    def entry(name: str, count: int) -> Entry:
        def contestant() -> float:
            calls.append(name)
            return float(len(calls))

        return Entry(contestant, count, warms_itself=name == "b")

    return {name: entry(name, count) for name, count in rounds.items()}


def test_contestants_take_turns_and_warm_up_uncounted() -> None:
    """One uncounted turn before the first, none for those that warm themselves; fewer rounds where fewer are wanted."""
    calls: list[str] = []
    assert {"a": [2.0, 4.0], "b": [3.0]} == run(_entries(calls, a=2, b=1))
    assert ["a", "a", "b", "a"] == calls


def test_a_later_call_runs_only_what_is_missing() -> None:
    """Rounds that were seen stay; without budget nothing runs."""
    calls: list[str] = []
    assert {"a": [7.0, 8.0], "b": [9.0, 1.0]} == run(_entries(calls, a=2, b=2), {"a": [7.0, 8.0], "b": [9.0]})
    assert ["b"] == calls
    assert {"a": [7.0]} == run(_entries(calls, a=2), {"a": [7.0]}, budget_s=-1)


def test_who_fails_is_left_out_and_the_others_go_on() -> None:
    """A peer that dies in its second turn keeps its first figure; nobody else loses any."""
    calls: list[str] = []

    def fails() -> float:
        calls.append("c")
        if len(calls) > 3:
            raise Failed("ended with status 1")
        return 5.0

    seen: list[int] = []
    entries = {"c": Entry(fails, 3, warms_itself=True), **_entries(calls, a=3)}
    values_by_name = run(entries, after=lambda values: seen.append(len(values["a"])))
    assert ([5.0], 3, 1) == (values_by_name["c"], len(values_by_name["a"]), calls.count("c") - 1)
    assert [0, 1, 1, 2, 3] == seen


def test_the_plot_has_a_point_for_every_number_of_adapters() -> None:
    """base is 0, one is 1, many is what the run mixed; who has one figure only is not on it."""
    spread = {"ours.base": 9, "ours.one": 8, "ours.4": 7, "ours.many": 6, "limit": 10, "naive.many": 1}
    report = {
        "workload": {"adapters": 16},
        "spread": {name: {"median": float(value)} for name, value in spread.items()},
    }
    assert {"ours": {0: 9.0, 1: 8.0, 4: 7.0, 16: 6.0}} == curves(report)
