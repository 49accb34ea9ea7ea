"""Adapters' chat templates run outside of the worker: an honest one writes its text, a hostile one ends itself."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lorapool.shared.errors import InvalidRequest
from lorapool.worker.confinement.process import ConfinedProcess
from lorapool.worker.text.template_process import TemplateEnded, TemplateProcesses

HELLO = [{"role": "user", "content": "Hello"}]
HONEST = "{% for m in messages %}{{ bos_token }}{{ m.role }}: {{ m.content }}\n{% endfor %}{{ messages | length }}"


@pytest.fixture(scope="module")
def templates() -> TemplateProcesses:
    return TemplateProcesses()


@pytest.fixture(autouse=True)
def still_rendering(templates: TemplateProcesses) -> Iterator[None]:
    """After whatever the test did, an honest template is rendered."""
    yield
    assert "<s>user: Hello\n1" == templates.render(HONEST, HELLO, {"bos_token": "<s>"})


def test_a_template_that_refuses_says_why(templates: TemplateProcesses) -> None:
    """raise_exception, as transformers' templates use it, reaches the caller."""
    with pytest.raises(InvalidRequest, match="no system messages"):
        templates.render("{{ raise_exception('no system messages') }}", HELLO, {})


def test_a_template_reaches_no_objects(templates: TemplateProcesses) -> None:
    """transformers' sandbox stands: no way from a string to a class."""
    with pytest.raises(InvalidRequest, match="SecurityError"):
        templates.render("{{ ''.__class__.__mro__[1].__subclasses__() }}", HELLO, {})


@pytest.mark.parametrize(
    "hostile",
    [
        "{{ 'x' * 10 ** 10 }}",
        "{% set n = namespace(x='xxxxxxxx') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{{ 'x' * 5000000 }}",
        "{{ 'x'.center(10 ** 11) }}",
    ],
)
def test_a_template_without_measure_is_refused(templates: TemplateProcesses, hostile: str) -> None:
    """Strings of gigabytes do not fit the memory that it has, and of some megabytes are not taken."""
    with pytest.raises(InvalidRequest, match=r"Memory|memory|characters"):
        templates.render(hostile, HELLO, {})


def test_a_template_without_end_is_stopped() -> None:
    """Ten billion turns of two loops: ended by the timer, and the next template has a process of its own."""
    templates = TemplateProcesses(computes_s=1)
    with pytest.raises(TemplateEnded, match=r"may compute for 1 s, and was stopped: it took too long"):
        templates.render("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", HELLO, {})
    assert templates.render("{{ messages | length }}", HELLO, {}) == "1"


def test_the_process_sees_no_settings_of_the_worker(
    templates: TemplateProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Redis URL with its password is not in the environment of a process that runs foreign templates."""
    monkeypatch.setenv("LORAPOOL_REDIS_URL", "redis://:secret@host")
    process = ConfinedProcess("lorapool.worker.text.template_child", "5", timeout_s=60)
    process.ask({"template": HONEST, "messages": HELLO, "tokens": {"bos_token": ""}})
    assert b"secret" not in Path(f"/proc/{process.pid}/environ").read_bytes()


def test_several_are_rendered_at_once() -> None:
    """Loops of one template do not keep another's from being rendered."""
    templates = TemplateProcesses(computes_s=4, processes=3)
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with ThreadPoolExecutor(3) as threads:
        loops = [threads.submit(templates.render, endless, HELLO, {}) for _ in range(2)]
        assert "1" == threads.submit(templates.render, "{{ messages | length }}", HELLO, {}).result(60)
        assert not any(loop.done() for loop in loops)
        assert all(isinstance(loop.exception(60), TemplateEnded) for loop in loops)
