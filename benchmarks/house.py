"""How is the code arranged? Rooms, arrows, circles and floors of each package and folder, and how long functions are.

``python -m benchmarks.house [--root CHECKOUT] [--out FILE.json]``: a room is a module, or a folder seen as one; an
arrow is an import between two of them, also one for type checkers alone; a circle is a set of rooms that all lead to
each other; the floors are the rooms of the longest way down. ``--root`` measures another checkout, to compare the two.
"""

from __future__ import annotations

import ast
import json
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any

import grimp
import typer
from rich.console import Console
from rich.table import Table

PACKAGES = ("shared", "producer", "worker")
Arrows = Mapping[str, frozenset[str]]  # from a room to those that it imports
console = Console()


@dataclass(frozen=True)
class Wing:
    """One package or folder, seen from within."""

    name: str
    rooms: int
    arrows: int
    circles: int
    floors: int
    circling: str  # the rooms of the circles


@dataclass(frozen=True)
class Functions:
    """Lines of the functions of a package."""

    name: str
    files: int
    lines: int
    median: float
    p90: float
    longest: int


def main(
    root: Annotated[Path, typer.Option(help="The checkout to measure.")] = Path(),
    out: Annotated[Path | None, typer.Option(help="Where the JSON goes.")] = None,
) -> None:
    """Measure, print, write the JSON."""
    wings = list(wings_of(modules_below(root.resolve())))
    functions = [functions_of(root, package) for package in PACKAGES]
    readme_bytes = (root / "README.md").stat().st_size
    _print("arrangement", list(map(asdict, wings)))
    _print("functions", list(map(asdict, functions)))
    console.print(f"README.md: {readme_bytes:,} bytes")
    if out is not None:
        measured = {"wings": list(map(asdict, wings)), "functions": list(map(asdict, functions))}
        out.write_text(json.dumps(measured | {"readme_bytes": readme_bytes}, indent=2) + "\n")


def modules_below(root: Path) -> Arrows:
    """The import graph of a checkout."""
    with tempfile.TemporaryDirectory(prefix="lorapool-house-") as folder:
        for package in PACKAGES:
            place = Path(folder, "lorapool", package)
            place.parent.mkdir(exist_ok=True)
            place.symlink_to(root / package)
        sys.path.insert(0, folder)
        try:
            names = [f"lorapool.{package}" for package in PACKAGES]
            graph = grimp.build_graph(*names, exclude_type_checking_imports=False, cache_dir=None)
        finally:
            sys.path.remove(folder)
    return {module: frozenset(graph.find_modules_directly_imported_by(module)) for module in graph.modules}


def wings_of(modules: Arrows) -> Iterator[Wing]:
    """Each package by its rooms, then each of its folders by its modules."""
    for package in PACKAGES:
        top = f"lorapool.{package}"
        yield wing(top, modules)
        folders = {module.split(".")[2] for module in modules if module.startswith(f"{top}.") and module.count(".") > 2}
        for folder in sorted(folders):
            yield wing(f"{top}.{folder}", modules)


def wing(name: str, modules: Arrows) -> Wing:
    """One folder, whatever lies below one of its rooms counted as that room."""
    rooms = rooms_of(name, modules)
    circles = circles_of(rooms)
    return Wing(
        name.removeprefix("lorapool."),
        rooms=len(rooms),
        arrows=sum(map(len, rooms.values())),
        circles=len(circles),
        floors=floors_of(rooms),
        circling="; ".join(sorted(", ".join(sorted(circle)) for circle in circles)),
    )


def rooms_of(name: str, modules: Arrows) -> Arrows:
    """The rooms of one folder, and where each leads within it; the folder's own module is no room."""
    depth = name.count(".") + 1

    def room_of(module: str) -> str | None:
        return module.split(".")[depth] if module.startswith(f"{name}.") else None

    rooms: dict[str, set[str]] = {}
    for module, imported in modules.items():
        if (room := room_of(module)) is not None:
            leads = {other for other in map(room_of, imported) if other is not None}
            rooms.setdefault(room, set()).update(leads - {room})
    return {room: frozenset(leads) for room, leads in rooms.items()}


def circles_of(rooms: Arrows) -> list[frozenset[str]]:
    """Rooms from each of which one comes to each of the others."""
    reach = {room: reached_from(room, rooms) for room in rooms}
    circles = {frozenset(other for other in reach[room] if room in reach[other]) for room in rooms}
    return [circle for circle in circles if circle]


def reached_from(room: str, rooms: Arrows) -> frozenset[str]:
    """All rooms below that one; itself only through others."""
    seen: set[str] = set()
    ways = list(rooms[room])
    while ways:
        if (way := ways.pop()) not in seen:
            seen.add(way)
            ways += rooms[way]
    return frozenset(seen)


def floors_of(rooms: Arrows) -> int:
    """The rooms of the longest way down; a circle is one floor."""
    circle_of = {room: "+".join(sorted(circle)) for circle in circles_of(rooms) for room in circle}
    leads: dict[str, set[str]] = {}
    for room, others in rooms.items():
        here = circle_of.get(room, room)
        leads.setdefault(here, set()).update({circle_of.get(other, other) for other in others} - {here})
    return _height(leads)


def _height(leads: Mapping[str, Iterable[str]]) -> int:
    height: dict[str, int] = {}
    try:
        for room in TopologicalSorter(leads).static_order():
            height[room] = 1 + max((height[other] for other in leads[room]), default=0)
    except CycleError as error:  # circles were made one room before
        raise AssertionError(f"{error.args[1]} lead to each other") from None
    return max(height.values(), default=0)


def functions_of(root: Path, package: str) -> Functions:
    """How long the functions of a package are."""
    texts = [path.read_text() for path in sorted((root / package).rglob("*.py"))]
    lengths = [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for text in texts
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return Functions(
        package,
        files=len(texts),
        lines=sum(text.count("\n") for text in texts),
        median=statistics.median(lengths),
        p90=statistics.quantiles(lengths, n=10)[-1],
        longest=max(lengths),
    )


def _print(title: str, rows: list[dict[str, Any]]) -> None:
    table = Table(title=title)
    for name, value in rows[0].items():
        table.add_column(name, justify="left" if isinstance(value, str) else "right")
    for row in rows:
        table.add_row(*(f"{value:g}" if isinstance(value, float) else str(value) for value in row.values()))
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
