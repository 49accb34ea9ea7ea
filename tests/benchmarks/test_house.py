"""The survey of the house counts what it says, and this house has no circle."""

from __future__ import annotations

from pathlib import Path

from benchmarks.house import circles_of, floors_of, modules_below, rooms_of, wings_of

ROOT = Path(__file__).parents[2]
MODULES = {
    "lorapool.worker": frozenset[str](),
    "lorapool.worker.cli": frozenset({"lorapool.worker.loop.worker", "lorapool.worker.engine.port"}),
    "lorapool.worker.loop.worker": frozenset({"lorapool.worker.engine.port", "lorapool.worker.loop.claimer"}),
    "lorapool.worker.loop.claimer": frozenset({"lorapool.shared.errors"}),
    "lorapool.worker.engine.port": frozenset[str](),
}


def test_a_folder_is_one_room_of_its_package():
    """Arrows within it are its own; those to other packages are none of the package's."""
    expected = {"cli": {"loop", "engine"}, "loop": {"engine"}, "engine": set[str]()}
    assert expected == rooms_of("lorapool.worker", MODULES)
    assert {"worker": {"claimer"}, "claimer": set[str]()} == rooms_of("lorapool.worker.loop", MODULES)


def test_circles_are_rooms_that_lead_to_each_other():
    """Two circles are two, and a room that merely leads into one is in none."""
    rooms = {room: frozenset(to) for room, to in {"a": "b", "b": "c", "c": "b", "d": "e", "e": "d", "f": "a"}.items()}
    assert {frozenset("bc"), frozenset("de")} == set(circles_of(rooms))


def test_floors_are_the_longest_way_down():
    """A circle is one floor."""
    assert floors_of({"a": frozenset("bc"), "b": frozenset("c"), "c": frozenset()}) == 3
    assert floors_of({"a": frozenset("b"), "b": frozenset("ac"), "c": frozenset()}) == 2


def test_no_folder_has_a_circle():
    """Not even one that only type checkers see."""
    wings = list(wings_of(modules_below(ROOT)))
    assert len(wings) > 15
    assert not [(wing.name, wing.circling) for wing in wings if wing.circles]
