"""ToolUse: what the tools of a job ask of its answer: a grammar, where calls are held to one, and a parser of calls.

Knows how the choice of tools, their strictness and the form of the answer go together; not how tools are shown to the
model (chat.py).
"""

from __future__ import annotations

from typing import NamedTuple

from lorapool.shared.job import Job
from lorapool.worker.text.call_grammar import CallGrammar
from lorapool.worker.text.call_marks import CallMarks
from lorapool.worker.text.call_syntax import HERMES
from lorapool.worker.text.chat import chat_of
from lorapool.worker.text.grammar import grammar_of
from lorapool.worker.text.response_template import ResponseTemplate, TemplateCalls
from lorapool.worker.text.tool_calls import MAX_CALLS, CallParser, Tally, ToolCalls


class ToolUse(NamedTuple):
    """``grammar``: of the whole answer, None where it is free. ``parser``: a new one."""

    grammar: str | None
    parser: CallParser


def tool_use(job: Job, job_id: str, template: ResponseTemplate | None, marks: CallMarks) -> ToolUse:
    """Of a job that may call tools. ``template``: of the model, where its own chat template shows them."""
    names = job.tool_choice.names or tuple(tool.name for tool in job.tools)
    tally = Tally(job_id, MAX_CALLS if job.parallel_tool_calls else 1)
    syntax = HERMES if template is None else template.syntax
    tools = [tool for tool in job.tools if tool.name in names]
    calls = CallGrammar(tools, job.parallel_tool_calls, syntax or HERMES, marks.ids, marks.beside)
    grammar = _grammar(job, calls, syntax is not None)
    if grammar is None and template is not None and syntax is None:
        return ToolUse(None, TemplateCalls(template, chat_of(job).tools, names, tally))
    return ToolUse(grammar, ToolCalls(names, tally, syntax or HERMES, held=grammar is not None))


def _grammar(job: Job, calls: CallGrammar, own: bool) -> str | None:
    """``own``: the model writes calls of itself in the syntax that the grammar has."""
    if job.tool_choice.mode == "required":
        return calls.required()
    if job.response_format is not None:
        return calls.instead_of(grammar_of(job.response_format))
    held = job.tool_choice.names or not job.parallel_tool_calls or any(tool.strict for tool in calls.tools)
    return calls.free() if held and own else None
