"""How messages are written: prompt formats, and chat templates, which are programs of strangers."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

from lorapool.shared.catalog.adapter_record import encoded
from lorapool.shared.job import Message
from lorapool.shared.prompt_format import PromptFormat
from lorapool.worker.text.template_process import TemplateProcesses
from tests.fuzz import mutation
from tests.fuzz.target import Target

MESSAGES = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "How long is our runway?"})
FORMS = (
    {"kind": "custom", "prefix": "Q: ", "suffix": "\nA: ", "between": "\n"},
    {"kind": "raw"},
    {"kind": "chat", "template": "{{ messages }}"},
)
PIECES = (
    "{% for m in messages %}", "{% endfor %}", "{{ m.content }}", "{{ messages[0]['role'] }}", "{{ 'x' * 10**9 }}",
    "{% if x %}",
    "{% else %}", "{% endif %}", "{{ raise_exception('no \ud800') }}", "{{ ''.__class__.__mro__ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{% for i in range(10**9) %}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{% set x = messages %}",
    "{{ bos_token }}",
    "{% include 'x' %}", "{% extends 'y' %}", "{{ strftime_now('%Y') }}", "{{ messages | tojson }}", "{{", "}}", "{%",
    "%}", "{#",
    "{{ 2 ** 2 ** 2 ** 2 ** 2 ** 2 }}", "{{ [0] * 10**10 }}", "{{ '%1000000000d' % 1 }}", "{{ range(10**12) | list }}",
)  # fmt: skip


def check_form(fields: Any) -> None:
    """A format is refused by its fields' names, or writes a text, and is stored and read as it was."""
    form = PromptFormat.of(fields)
    if form.kind != "chat":
        assert isinstance(form.render([Message.model_validate(message) for message in MESSAGES]), str)
    encoded({"prompt_format": form})


def draw_template(random: Random) -> str:
    return "".join(random.choice((*PIECES, mutation.text(random)[:100])) for _ in range(random.randint(1, 8)))


@cache
def _processes() -> TemplateProcesses:
    return TemplateProcesses(computes_s=1.0, processes=1)


def check_template(template: str) -> None:
    """Whatever it does becomes a text or a refusal, within the time that it is given."""
    assert isinstance(_processes().render(template, MESSAGES, {"bos_token": "<s>"}), str)


TARGETS = (
    Target("prompt_format", mutation.one_of(*FORMS), check_form),
    Target("template", draw_template, check_template, limit_s=20.0),
)
