"""The fixture of all containment tests, and their judgements at the end of the run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TypeAlias

import pytest

from tests.containment.pool import ContainedPool
from tests.containment.pool import contained as contained_pool

Contain: TypeAlias = Callable[..., AbstractAsyncContextManager[ContainedPool]]


@pytest.fixture
def contained(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Contain:
    """A pool of the test's own; how to use it stands in tests/containment/__init__.py."""

    def report(line: str) -> None:
        line = f"{request.node.name}: {line}"
        print(line)
        record_property("containment", line)

    return partial(contained_pool, report=report)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the bystanders met, a line a judgement."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    calls = [report.user_properties for report in reports if getattr(report, "when", "") == "call"]
    if lines := [value for properties in calls for name, value in properties if name == "containment"]:
        terminalreporter.section("bystanders")
        for line in lines:
            terminalreporter.line(line)
