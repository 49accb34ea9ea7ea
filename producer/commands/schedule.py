"""schedule add, ls, rm: jobs that recur, or run once at a given time, from the command line."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from lorapool.producer.client.client import Client
from lorapool.producer.commands import options as o
from lorapool.producer.commands.answer_form import form_of
from lorapool.producer.commands.jobs import input_of, name_of, sampling_of
from lorapool.producer.commands.render import count, document, note, plain, say, seconds, table
from lorapool.producer.commands.session import run
from lorapool.shared.job import Priority
from lorapool.shared.timetable.schedule import Schedule

app = typer.Typer(
    help="Have jobs run again and again, or once at a given time. A lorapool-worker maintenance makes the runs.",
    no_args_is_help=True,
)
What = Annotated[
    list[str], typer.Argument(metavar="[CRON] ADAPTER [PROMPT]", help="CRON is left out with --at; as for submit.")
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The entry's name, as add printed it and ls shows it.")]


@app.command()
def add(  # noqa: PLR0917 - typer takes one argument a flag
    context: typer.Context,
    what: What,
    at: o.At = None,
    tz: o.Tz = "UTC",
    name: o.EntryName = None,
    max_late: o.MaxLate = 3600.0,
    message: o.Message = None,
    chat: o.Chat = False,
    agent: o.Agent = "cli",
    priority: o.JobPriority = Priority.NORMAL,
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
    """Add an entry. Prints its name.

    lorapool schedule add "0 8 * * *" cfo "What is due today?" --chat --tz Europe/Berlin
    lorapool schedule add --at 2027-01-01T08:00 cfo "A happy new year?"
    """
    cron, adapter, prompt = _what(what, once=at is not None)
    given = sampling_of(context) | form_of(context)
    given |= {"cron": cron, "at": at, "tz": tz, "name": name, "max_late": max_late}
    given |= {"agent": agent, "priority": priority, "deadline": deadline}

    async def work(client: Client) -> None:
        entry = await client.schedules.add(name_of(adapter), **input_of(prompt, message, chat), **given)
        if as_json:
            document(plain(entry))
        else:
            say(entry.name)
            note(f"next run: {_next(entry)}; see them all with: lorapool schedule ls")
            await _warn(client)

    run(work, redis_url=redis_url, pool=pool, as_json=as_json, act=("added schedule", name or adapter))


@app.command()
def ls(redis_url: o.RedisUrl = None, pool: o.Pool = None, as_json: o.Json = False) -> None:
    """List the entries: when, what, the next run, the last run's job and its state."""

    async def work(client: Client) -> None:
        entries = await client.schedules.list()
        if as_json:
            document([plain(entry) for entry in entries])
        elif entries:
            columns = ("name", "when", "adapter", "next run", "in", "runs", "missed", "last job", "state", "error")
            table(columns, map(_row, entries), right=("in", "runs", "missed"))
            await _warn(client)
        else:
            note('no schedules: lorapool schedule add "0 8 * * *" ADAPTER "…"')

    run(work, redis_url=redis_url, pool=pool, as_json=as_json)


@app.command()
def rm(name: Name, redis_url: o.RedisUrl = None, pool: o.Pool = None, as_json: o.Json = False) -> None:
    """Remove an entry. Jobs that it has made go on."""

    async def work(client: Client) -> None:
        await client.schedules.remove(name)
        if as_json:
            document({"removed": name})
        else:
            say(f"{name} is removed")

    run(work, redis_url=redis_url, pool=pool, as_json=as_json, act=("removed schedule", name))


async def _warn(client: Client) -> None:
    if not await client.schedules.watched():
        note("nobody makes the runs: start one or more lorapool-worker maintenance", style="yellow")


def _what(what: list[str], *, once: bool) -> tuple[str | None, str, str | None]:
    """CRON, ADAPTER and PROMPT of the arguments; with --at there is no CRON."""
    words: list[Any] = [None, *what] if once else list(what)
    if len(words) not in (2, 3):
        expected = "ADAPTER [PROMPT]" if once else "CRON ADAPTER [PROMPT], CRON in quotes"
        raise typer.BadParameter(f"{' '.join(what)!r:.60}: expected {expected}", param_hint="add")
    cron, adapter, *prompt = words
    return cron, adapter, prompt[0] if prompt else None


def _row(entry: Schedule) -> tuple[object, ...]:
    when = entry.cron or "once"
    left = None if entry.next_ms is None else seconds(max(0.0, entry.next_ms - time.time() * 1000))
    adapter = entry.adapter or "_base"
    done = (count(entry.runs), count(entry.missed), entry.last_job, entry.last_state, entry.last_error)
    return entry.name, when, adapter, _next(entry), left, *done


def _next(entry: Schedule) -> str:
    return "none: it is over" if entry.next_ms is None else entry.shown(entry.next_ms)
