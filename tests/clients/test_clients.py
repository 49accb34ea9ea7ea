"""Real clients, each in an environment of its own as its users have it, against the real gateway and a real worker.

``make clients`` runs them: making the environments takes minutes and asks the package index.
"""

from __future__ import annotations

import pytest

from tests.clients.running import PROGRAMS, run
from tests.clients.venvs import REQUIREMENTS, python_of


@pytest.mark.parametrize("client", REQUIREMENTS)
def test_client_works_with_the_base_url_changed(client: str, gateway_url: str) -> None:
    """Its own first example, and what else it can: every step of its program ends well."""
    steps = run(client, python_of(client), gateway_url)
    assert steps
    print(f"{client}: {', '.join(steps)}")


def test_every_program_has_an_environment() -> None:
    """No program is left out."""
    assert {f"{client}_client.py" for client in REQUIREMENTS} == {path.name for path in PROGRAMS.glob("*.py")}
