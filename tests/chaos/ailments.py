"""Ailments: what ails one worker's device or mount from now on, told to its fake model by files in a folder.

Read by the engine's process at each step and each load, so that a worker can fall ill while it runs. Knows neither
engine nor worker.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class Ailments:
    """One folder's. Whoever shares it is ill together."""

    def __init__(self, folder: Path) -> None:
        self._sick, self._rows, self._away = folder / "sick", folder / "rows", folder / "away"

    # -- what a test says

    def fall_sick(self) -> None:
        """The device fails at everything."""
        self._sick.touch()

    def fill(self, rows: int) -> None:
        """The device has memory for so many rows."""
        _put(self._rows, str(rows))

    def unmount(self, refs: Iterable[str]) -> None:
        """These adapters cannot be reached."""
        _put(self._away, " ".join(refs))

    def recover(self) -> None:
        """From all of it."""
        for path in (self._sick, self._rows, self._away):
            path.unlink(missing_ok=True)

    # -- what the fake model asks

    @property
    def is_sick(self) -> bool:
        return self._sick.exists()

    @property
    def rows(self) -> int | None:
        text = _got(self._rows)
        return int(text) if text else None

    @property
    def away(self) -> frozenset[str]:
        return frozenset(_got(self._away).split())


def _put(path: Path, text: str) -> None:
    """Whole or not at all."""
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.replace(path)


def _got(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
