"""The presence benchmark measures what it says."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from benchmarks import presence
from tests.machine import Meanwhile


def test_a_fleet_beats_at_its_pace(tmp_path: Path, monkeypatch) -> None:
    """Every worker of the fleet beats once a beat, and the server's time for it is told."""
    monkeypatch.setattr(presence, "BEAT_S", 0.2)
    app = presence.typer.Typer()
    app.command()(presence.main)
    meanwhile = Meanwhile()
    outcome = CliRunner().invoke(app, ["--out", str(tmp_path / "p.json"), "--workers", "8", "--seconds", "2"])
    assert 0 == outcome.exit_code, outcome.output
    calm, churning = json.loads((tmp_path / "p.json").read_text())["presence"]
    assert 0.5 / meanwhile.slowdown() < calm["beats_s"] / (8 / 0.2) < 1.5
    assert churning["churn_per_s"] > 0
    assert calm["us_beat"] > 0
