"""submit, result, job, cancel: one job from the command line.

The answer goes to stdout and nothing else does; notes about it go to stderr.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from lorapool.producer.client.client import Client
from lorapool.producer.client.handle import JobHandle
from lorapool.producer.client.record import Record, state_of, timings_of
from lorapool.producer.client.request import PARAMS
from lorapool.producer.commands import options as o
from lorapool.producer.commands.answer_form import form_of
from lorapool.producer.commands.batch import submit_file
from lorapool.producer.commands.render import clean, count, document, fields, note, plain, say, seconds
from lorapool.producer.commands.session import run
from lorapool.shared.errors import ResultTimeout
from lorapool.shared.job import BASE_REF, Priority, Result
from lorapool.shared.malformed import number
from lorapool.shared.queue.protocol import Explanation
from lorapool.shared.server.keys import new_job_id
from lorapool.shared.tools import ToolChoice

Id = Annotated[str, typer.Argument(metavar="ID", help="The job's id, as submit printed it.")]
AdapterName = Annotated[
    str | None, typer.Argument(metavar="ADAPTER", help="Ref, alias or id; _base is the base model.")
]
Prompt = Annotated[str | None, typer.Argument(metavar="PROMPT", help="Raw text; - reads it from stdin.")]


def submit(  # noqa: PLR0917 - typer takes one argument a flag
    context: typer.Context,
    adapter: AdapterName = None,
    prompt: Prompt = None,
    file: o.JobsFile = None,
    out: o.ResultsFile = None,
    retry_errors: o.RetryErrors = False,
    at_once: o.AtOnce = 256,
    message: o.Message = None,
    chat: o.Chat = False,
    tools: o.Tools = None,
    tool_choice: o.ToolChoice = None,
    stream: o.Stream = False,
    wait: o.Wait = False,
    timeout: o.Timeout = None,
    agent: o.Agent = "cli",
    job_id: o.JobId = None,
    priority: o.JobPriority = Priority.NORMAL,
    delay: o.Delay = None,
    deadline: o.Deadline = None,
    json_schema: o.JsonSchema = None,
    json_object: o.JsonObject = False,
    regex: o.Regex = None,
    choice: o.Choice = None,
    grammar: o.Grammar = None,
    max_new_tokens: o.MaxNewTokens = None,
    temperature: o.Temperature = None,
    top_p: o.TopP = None,
    top_k: o.TopK = None,
    min_p: o.MinP = None,
    repetition_penalty: o.RepetitionPenalty = None,
    frequency_penalty: o.FrequencyPenalty = None,
    presence_penalty: o.PresencePenalty = None,
    seed: o.Seed = None,
    stop: o.Stop = None,
    min_new_tokens: o.MinNewTokens = None,
    ignore_eos: o.IgnoreEos = False,
    logprobs: o.Logprobs = False,
    top_logprobs: o.TopLogprobs = None,
    logit_bias: o.LogitBias = None,
    redis_url: o.RedisUrl = None,
    pool: o.Pool = None,
    as_json: o.Json = False,
) -> None:
    """Send a prompt to an adapter. Prints the job's id, or with --wait or --stream the answer.

    lorapool submit cfo "How long is our runway?" --chat --stream

    Or a file of requests, one JSON object a line ({"adapter": "cfo", "prompt": "…", "max_new_tokens": 64}); flags hold
    for lines that do not say otherwise. After Ctrl-C the same command goes on where it was:

    lorapool submit --file jobs.jsonl --out results.jsonl
    """
    given = sampling_of(context)
    given |= {"agent": agent, "job_id": job_id, "priority": priority, "delay": delay, "deadline": deadline}
    given |= tools_of(tools, tool_choice) | form_of(context)
    if file is not None or out is not None:
        single = {"PROMPT": prompt, "--message": message, "--job-id": job_id, "--stream": stream, "--chat": chat}
        source, results = _files(file, out, single)
        defaults = given if adapter is None else {**given, "adapter": name_of(adapter)}
        submit_file(
            source,
            results,
            defaults,
            retry_errors=retry_errors,
            at_once=at_once,
            redis_url=redis_url,
            pool=pool,
            as_json=as_json,
        )
        return
    if adapter is None:
        raise typer.BadParameter("give an ADAPTER, or --file and --out", param_hint="ADAPTER")

    asked = input_of(prompt, message, chat)

    async def work(client: Client) -> None:
        job = await _submitted(client, {"adapter": name_of(adapter), **asked, "stream": stream, **given})
        if not stream and not wait:
            _show_submitted(job, as_json)
            return
        await _show_answer(job, timeout, stream=stream, as_json=as_json)

    run(work, redis_url=redis_url, pool=pool, as_json=as_json)


async def _show_answer(job: JobHandle, timeout: float | None, *, stream: bool, as_json: bool) -> None:
    try:
        if stream:
            await _show_stream(job, timeout, as_json)
        else:
            show_result(await job.result(timeout), as_json)
    except asyncio.CancelledError:  # Ctrl-C
        note(f"the job goes on: lorapool result {job.id}, or lorapool cancel {job.id}")
        raise


async def _submitted(client: Client, arguments: dict[str, Any]) -> JobHandle:
    """The job; an id of our own making, so that Ctrl-C leaves a name to ask for."""
    arguments["job_id"] = arguments["job_id"] or new_job_id()
    try:
        return await client.submit(**arguments)
    except asyncio.CancelledError:
        job_id = arguments["job_id"]
        note(f"the job may have been queued: ask with lorapool result {job_id}, or lorapool cancel {job_id}")
        raise


def result(
    job_id: Id,
    timeout: o.Timeout = None,
    no_wait: Annotated[bool, o.flag("--no-wait", "Fail at once if the job has not ended.")] = False,
    redis_url: o.RedisUrl = None,
    pool: o.Pool = None,
    as_json: o.Json = False,
) -> None:
    """Print a job's answer, waiting for it if need be."""

    async def work(client: Client) -> None:
        job = client.get(job_id)
        if no_wait and not (state := await job.state()).terminal:
            raise ResultTimeout(f"job {job.id} is {state}: it has not ended yet")
        show_result(await job.result(timeout), as_json)

    run(work, redis_url=redis_url, pool=pool, as_json=as_json)


def job(
    job_id: Id,
    explain: o.Explain = False,
    redis_url: o.RedisUrl = None,
    pool: o.Pool = None,
    as_json: o.Json = False,
) -> None:
    """Show a job: its state, its times, who runs it; with --explain also why it is there."""

    async def work(client: Client) -> None:
        handle = client.get(job_id)
        record = await handle.record()
        explanation = await handle.explain() if explain else None
        _show_job(handle.id, record, explanation, as_json)

    run(work, redis_url=redis_url, pool=pool, as_json=as_json)


def cancel(job_id: Id, redis_url: o.RedisUrl = None, pool: o.Pool = None, as_json: o.Json = False) -> None:
    """Cancel a job. One that has ended stays as it is."""

    async def work(client: Client) -> None:
        handle = client.get(job_id)
        state = await handle.cancel()
        if as_json:
            document({"job_id": handle.id, "state": state})
        elif state == "running":
            say(f"{handle.id} is running: its worker has been asked to stop")
        else:
            say(f"{handle.id} {'is cancelled' if state == 'cancelled' else f'had already {state}'}")

    run(work, redis_url=redis_url, pool=pool, as_json=as_json, act=("cancelled", job_id))


def show_result(answer: Result, as_json: bool) -> None:
    """The answer on stdout, its proof on stderr."""
    if as_json:
        document(plain(answer))
        return
    if answer.text or not answer.tool_calls:
        say(answer.text)
    show_calls(answer)
    note(summary(answer))


def show_calls(answer: Result) -> None:
    """The calls of tools in it, one a line: name, arguments, id."""
    for call in answer.tool_calls:
        say(f"{call.name} {' '.join(call.arguments.split())} {call.id}")


def summary(answer: Result) -> str:
    """``cfo@1.0.0 · 12 + 40 tokens · length · queued 3 ms, first token 80 ms, total 1.2 s · worker w1``."""
    times = answer.timings
    stages = {"queued": times.queued_ms, "first token": times.first_token_ms, "total": times.total_ms}
    parts = [
        answer.adapter + (f" ({answer.digest[:12]})" if answer.digest else ""),
        f"{answer.usage.prompt_tokens} + {answer.usage.completion_tokens} tokens",
        answer.finish_reason,
        ", ".join(f"{name} {seconds(value)}" for name, value in stages.items() if value is not None),
        f"worker {answer.worker}",
    ]
    return " · ".join(parts + ([f"attempt {answer.attempts}"] if answer.attempts > 1 else []))


async def _show_stream(job: JobHandle, timeout: float | None, as_json: bool) -> None:
    async for delta in job.stream(timeout):
        if as_json:
            fields_ = {name: getattr(delta, name) for name in ("attempt", "offset", "text", "token_ids", "restart")}
            if calls := delta.more.tool_calls:
                fields_["tool_calls"] = [call.model_dump(exclude_defaults=True) for call in calls]
            document({"delta": fields_})
            continue
        if delta.restart:
            note("\n(a retry produced other text; it begins again)")
        sys.stdout.write(clean(delta.text))
        sys.stdout.flush()
    answer = await job.result(timeout)
    if as_json:
        document({"result": plain(answer)})
    else:
        say()
        show_calls(answer)
        note(summary(answer))


def _show_submitted(job: JobHandle, as_json: bool) -> None:
    if as_json:
        document({"job_id": job.id, "created": job.created})
        return
    say(job.id)
    known = "" if job.created else "this job was there already; "
    note(f"{known}get the answer with: lorapool result {job.id}")


def _show_job(job_id: str, record: Record, explanation: Explanation | None, as_json: bool) -> None:
    shown = {name: _value(name, value) for name, value in sorted(record.items()) if name != "detail"}
    if as_json:
        if explanation is not None:
            facts = dict(explanation.facts)
            shown["explanation"] = {"reason": explanation.reason, "message": explanation.message, "facts": facts}
        document({"job_id": job_id, **shown})
        return
    lines: dict[str, object] = {"job": job_id, "state": shown["state"]}
    if explanation is not None:
        lines["why"] = explanation.message
    order = ("ref", "agent", "priority", "attempts", "worker", "error", "message", "finish_reason")
    lines |= {name: shown.get(name) for name in order}
    if state_of(record).terminal and shown.get("completion_tokens"):
        lines["tokens"] = f"{count(number(shown['prompt_tokens']))} + {count(number(shown['completion_tokens']))}"
    for name, value in plain(timings_of(record)).items():
        lines[name.removesuffix("_ms")] = None if value is None else seconds(value)
    if explanation is not None:
        lines |= {name: value for name, value in explanation.facts.items() if name in _TELLING}
    fields({**lines, "text": shown.get("text")})


_TELLING = ("ahead", "adapter_state", "adapter_waiting", "adapter_running", "adapter_max_inflight")
_NUMBERS = frozenset(
    ("attempts", "lost", "retries", "fence", "emitted", "cost", "seed", "prompt_tokens", "completion_tokens")
)


def _value(name: str, value: str | bytes) -> Any:
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    if name.endswith("_ms") or name in _NUMBERS:
        return int(text) if text.lstrip("-").isdigit() else None
    return text == "1" if name in ("stream", "resident") else text


def sampling_of(context: typer.Context) -> dict[str, Any]:
    """The sampling params that were given; 0 is a value, an absent flag is not."""
    given = {name: context.params[name] for name in PARAMS}
    if given["logit_bias"]:
        given["logit_bias"] = tuple(map(_bias, given["logit_bias"]))
    return {name: value for name, value in given.items() if not (value is None or value is False or value == [])}


def _bias(text: str) -> tuple[int, float]:
    token_id, _, bias = text.partition("=")
    try:
        return int(token_id), float(bias)
    except ValueError:
        raise typer.BadParameter(f"{text!r}: expected TOKEN_ID=BIAS, such as 1234=-100") from None


def tools_of(tools: Path | None, choice: str | None) -> dict[str, Any]:
    """tools= and tool_choice= of submit, from --tools and --tool-choice."""
    given: dict[str, Any] = {}
    if tools is not None:
        try:
            given["tools"] = json.loads(tools.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise typer.BadParameter(f"{tools}: {error}", param_hint="--tools") from None
    if choice is not None:
        named = {"mode": "required", "names": [choice]}
        given["tool_choice"] = choice if choice in get_args(ToolChoice.model_fields["mode"].annotation) else named
    return given


def _files(file: Path | None, out: Path | None, single: Mapping[str, object]) -> tuple[Path, Path]:
    if file is None or out is None:
        raise typer.BadParameter("--file and --out go together", param_hint="--file")
    if given := [name for name, value in single.items() if value]:
        raise typer.BadParameter(f"{', '.join(given)}: is for a single job, each line has its own", param_hint="--file")
    return file, out


def name_of(adapter: str) -> str | None:
    """``_base`` on the command line is no adapter."""
    return None if adapter == BASE_REF else adapter


def input_of(prompt: str | None, messages: list[str] | None, chat: bool) -> dict[str, Any]:
    """prompt= or messages= of submit, from PROMPT, --message and --chat."""
    text = sys.stdin.read() if prompt == "-" else prompt
    turns = [_message(item) for item in messages or ()]
    if text is not None and (turns or chat):
        turns.append({"role": "user", "content": text})
        return {"messages": turns}
    if text is None and not turns:
        raise typer.BadParameter("give a PROMPT, or at least one --message", param_hint="PROMPT")
    return {"messages": turns} if turns else {"prompt": text}


def _message(item: str) -> dict[str, str]:
    role, colon, content = item.partition(":")
    if not colon or role not in ("system", "user", "assistant"):
        raise typer.BadParameter(
            f"{item!r:.60}: expected system:TEXT, user:TEXT or assistant:TEXT", param_hint="--message"
        )
    return {"role": role, "content": content.lstrip()}
