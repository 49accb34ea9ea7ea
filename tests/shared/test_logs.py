from __future__ import annotations

import json

import pytest
import structlog

from lorapool.shared import logs


def test_a_line_is_json_without_passwords(capsys: pytest.CaptureFixture[str]) -> None:
    """Off a terminal each line is one JSON object, with level, time and what was bound, and no URL's password."""
    logs.configure("info", json=True)
    log = structlog.get_logger().bind(job="0.a")
    log.debug("unseen")
    log.info("settled", url="redis://:hunter2@host/0", total_ms=5)
    structlog.reset_defaults()
    [line] = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert ("settled", "info", "0.a", 5) == (entry["event"], entry["level"], entry["job"], entry["total_ms"])
    assert entry["url"] == "redis://:***@host/0"


def test_a_terminal_gets_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("debug", json=False)
    structlog.get_logger().debug("claimed", jobs=3)
    structlog.reset_defaults()
    assert "claimed" in capsys.readouterr().err
