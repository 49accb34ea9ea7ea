"""Every flag of ``lorapool`` once: its name, its environment variable, its help.

``--max-new-tokens`` is also LORAPOOL_MAX_NEW_TOKENS, and so on for each; the command line wins. Knows nothing of what
a command does with a value: ranges are checked where the library checks them, so both say the same.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from lorapool.shared import __version__
from lorapool.shared.job import Priority


class Role(StrEnum):
    """Of an API key."""

    AGENT = "agent"
    OPERATOR = "operator"


def flag(name: str, text: str, *more: str, **options: Any) -> Any:
    """A typer Option whose environment variable follows from its name."""
    variable = "LORAPOOL_" + name.removeprefix("--").replace("-", "_").upper()
    return typer.Option(name, *more, envvar=variable, show_envvar=False, help=text, **options)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"lorapool {__version__}")
        raise typer.Exit


# No environment variable: it is asked for, not set.
Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]

_WHERE = {"rich_help_panel": "Where"}
_HOW = {"rich_help_panel": "Sampling (default: greedy)"}
_JOB = {"rich_help_panel": "The job"}
_FILE = {"rich_help_panel": "A file of jobs"}

RedisUrl = Annotated[str | None, flag("--redis-url", "The Redis server (default: redis://localhost:6379/0).", **_WHERE)]
Pool = Annotated[str | None, flag("--pool", "The pool of workers and adapters (default: default).", **_WHERE)]
Json = Annotated[bool, flag("--json", "Print JSON instead of text; errors too.", **_WHERE)]

Message = Annotated[
    list[str] | None,
    flag("--message", "A chat message ROLE:TEXT (system, user or assistant); repeat for more.", "-m", **_JOB),
]
Chat = Annotated[bool, flag("--chat", "Send PROMPT as a user message through the chat template.", **_JOB)]
Tools = Annotated[
    Path | None, flag("--tools", "A JSON file: the tools that the answer may call, a list in OpenAI's form.", **_JOB)
]
ToolChoice = Annotated[
    str | None,
    flag("--tool-choice", "auto (the default), none, required, or the name of the tool to call.", **_JOB),
]
Stream = Annotated[bool, flag("--stream", "Show the text as it comes.", **_JOB)]
Wait = Annotated[bool, flag("--wait", "Wait for the answer and print it.", **_JOB)]
Timeout = Annotated[float | None, flag("--timeout", "Give up waiting after SECONDS; the job goes on.", **_JOB)]
Agent = Annotated[str, flag("--agent", "Who asks; jobs are counted by agent.", **_JOB)]
JobId = Annotated[str | None, flag("--job-id", "Your own id; the same id and request is never run twice.", **_JOB)]
JobPriority = Annotated[Priority, flag("--priority", "Which of the adapter's streams to wait in.", **_JOB)]
Delay = Annotated[float | None, flag("--delay", "Do not start before SECONDS have passed.", **_JOB)]
Deadline = Annotated[float | None, flag("--deadline", "Expire the job if it has not ended after SECONDS.", **_JOB)]

JobsFile = Annotated[Path | None, flag("--file", "Requests, one JSON object a line.", **_FILE)]
ResultsFile = Annotated[Path | None, flag("--out", "Where results go; lines it answers already are left out.", **_FILE)]
RetryErrors = Annotated[bool, flag("--retry-errors", "Ask those lines again whose result is an error.", **_FILE)]
AtOnce = Annotated[int, flag("--at-once", "Jobs under way at a time.", min=1, max=10_000, **_FILE)]

MaxNewTokens = Annotated[int | None, flag("--max-new-tokens", "At most N tokens (default: 128).", "-n", **_HOW)]
MinNewTokens = Annotated[int | None, flag("--min-new-tokens", "No end before N tokens.", **_HOW)]
Temperature = Annotated[float | None, flag("--temperature", "0 is greedy; up to 2 (default: 0).", "-t", **_HOW)]
TopP = Annotated[float | None, flag("--top-p", "Draw from the smallest set with this probability.", **_HOW)]
TopK = Annotated[int | None, flag("--top-k", "Draw from the K likeliest tokens; 0 is off.", **_HOW)]
MinP = Annotated[float | None, flag("--min-p", "Drop tokens below this share of the likeliest.", **_HOW)]
RepetitionPenalty = Annotated[float | None, flag("--repetition-penalty", "Above 1 discourages repeats.", **_HOW)]
FrequencyPenalty = Annotated[float | None, flag("--frequency-penalty", "-2 to 2, for each time a token came.", **_HOW)]
PresencePenalty = Annotated[float | None, flag("--presence-penalty", "-2 to 2, once a token has come.", **_HOW)]
Seed = Annotated[int | None, flag("--seed", "Same seed, same text (default: random).", **_HOW)]
Stop = Annotated[list[str] | None, flag("--stop", "Stop before this text; repeat for more.", **_HOW)]
IgnoreEos = Annotated[bool, flag("--ignore-eos", "Go on after the end-of-text token.", **_HOW)]
Logprobs = Annotated[bool, flag("--logprobs", "Return the chosen tokens' log probabilities (with --json).", **_HOW)]
TopLogprobs = Annotated[
    int | None, flag("--top-logprobs", "Tell of so many of the most probable tokens, 0 to 20; with --logprobs.", **_HOW)
]
LogitBias = Annotated[
    list[str] | None, flag("--logit-bias", "TOKEN_ID=BIAS, from -100 to 100; repeat for more.", **_HOW)
]

_FORM = {"rich_help_panel": "The answer's form, one of"}
JsonSchema = Annotated[str | None, flag("--json-schema", "JSON that fits this schema: a file, or JSON.", **_FORM)]
JsonObject = Annotated[bool, flag("--json-object", "A JSON object.", **_FORM)]
Regex = Annotated[str | None, flag("--regex", "Text that the whole expression matches.", **_FORM)]
Choice = Annotated[list[str] | None, flag("--choice", "This text, or another --choice.", **_FORM)]
Grammar = Annotated[Path | None, flag("--grammar", "Text by the Lark grammar in this file.", **_FORM)]

_WHEN = {"rich_help_panel": "When"}
At = Annotated[str | None, flag("--at", "Once, at this ISO time, such as 2027-01-01T08:00.", **_WHEN)]
Tz = Annotated[str, flag("--tz", "The time zone of CRON and --at, such as Europe/Berlin.", **_WHEN)]
EntryName = Annotated[str | None, flag("--name", "The entry's name (default: made up).", **_WHEN)]
MaxLate = Annotated[float, flag("--max-late", "Leave a run out that would be later than SECONDS.", **_WHEN)]

AdapterVersion = Annotated[str, flag("--version", "A version is immutable: new content, new version.")]
Alias = Annotated[list[str] | None, flag("--alias", "A name that points here, such as a role; repeat for more.")]
Metadata = Annotated[list[str] | None, flag("--metadata", "KEY=VALUE to keep with the record; repeat for more.")]
Digest = Annotated[str | None, flag("--digest", "sha256 of a folder that only the workers see.")]
AdapterId = Annotated[str | None, flag("--id", "The adapter's name (default: the folder's).")]
PublishTo = Annotated[str, flag("--to", "Folder or uri (s3://, gs://, az://, hf://) that the workers read.")]
PromptFormat = Annotated[
    str | None,
    flag("--prompt-format", 'How chat messages are written: chat, raw, or JSON such as {"suffix": "\\n###\\n"}.'),
]
ChatTemplate = Annotated[
    Path | None, flag("--chat-template", "A Jinja file for chat messages (default: chat_template.jinja in its folder).")
]
Parent = Annotated[list[str] | None, flag("--parent", "What it was trained on top of; it is then not served alone.")]
Owner = Annotated[str, flag("--owner", "Who answers for it.")]
ByWorker = Annotated[bool, flag("--worker", "Have a worker look: at its own copy, and at all it checks.")]
VerifyTimeout = Annotated[float, flag("--timeout", "Seconds to wait for a worker's answer.", min=0)]
NoWait = Annotated[bool, flag("--no-wait", "Do not wait for a worker to validate it.")]
ValidationTimeout = Annotated[float, flag("--timeout", "Seconds to wait for a worker to validate it.")]
DeleteAlias = Annotated[bool, flag("--delete", "Delete the name.")]
Removed = Annotated[bool, flag("--removed", "Removed versions too.")]
ForceRemoval = Annotated[bool, flag("--force", "Also while jobs wait or run: they end on it, new ones are refused.")]
DrainTimeout = Annotated[float, flag("--timeout", "Seconds to wait for the ends of its jobs.", min=0)]
Explain = Annotated[bool, flag("--explain", "Say why the job is where it is.")]
ByAgent = Annotated[str | None, flag("--agent", "Counters of this agent over all adapters instead.")]

MaxDepth = Annotated[str | None, flag("--max-depth", "At most N jobs waiting; none is the default again.")]
MaxInflight = Annotated[str | None, flag("--max-inflight", "At most N jobs running; none is the default again.")]
AgentWindow = Annotated[str | None, flag("--agent-window", "At most N undelivered jobs of one agent; or none.")]
Weight = Annotated[str | None, flag("--weight", "Its share of tokens against other adapters (default: 1); or none.")]
Limit = Annotated[int, flag("--limit", "At most N.", min=1)]
Percent = Annotated[int, flag("--percent", "Of a hundred jobs so many go there; 0 ends it.", min=0, max=100)]
Waiting = Annotated[bool, flag("--waiting", "Cancel the jobs that wait for ADAPTER instead.")]
OlderThan = Annotated[float | None, flag("--older-than", "Only what died SECONDS ago or earlier.", min=0)]
All = Annotated[bool, flag("--all", "Dead letters of every adapter.")]

_KEY = {"rich_help_panel": "What it may"}
# A variable of its own: LORAPOOL_AGENT is who asks.
KeyAgent = Annotated[
    str | None,
    flag("--key-agent", "Who its jobs are counted under (default: its name).", "--agent", **_KEY),
]
KeyAdapters = Annotated[
    list[str] | None,
    flag("--adapters", "Ids that it may ask, such as 'cfo*' or _base; repeat for more (default: all).", **_KEY),
]
KeyRole = Annotated[Role, flag("--role", "An operator may also see all and use the console.", **_KEY)]
JobsPerMinute = Annotated[str | None, flag("--jobs-per-minute", "At most N jobs submitted a minute.", **_KEY)]
TokensPerDay = Annotated[
    str | None, flag("--tokens-per-day", "At most N tokens of prompts and answers a day (UTC), such as 1e6.", **_KEY)
]
KeyWindow = Annotated[
    str | None, flag("--window", "At most N undelivered jobs on one adapter, instead of its --agent-window.", **_KEY)
]

_LISTEN = {"rich_help_panel": "Listening"}
_BOUNDS = {"rich_help_panel": "Bounds"}


class Disconnect(StrEnum):
    """What becomes of the jobs of a client that goes away."""

    CANCEL = "cancel"
    KEEP = "keep"


Host = Annotated[
    str, flag("--host", "The address to listen on; only this machine's own until there is a key.", **_LISTEN)
]
Port = Annotated[int, flag("--port", "The port to listen on; 0 takes a free one.", min=0, max=65535, **_LISTEN)]
Files = Annotated[str, flag("--files", "Folder or uri (s3://, gs://, az://) of uploaded files and batches.", **_LISTEN)]
BatchLease = Annotated[
    float, flag("--batch-lease", "SECONDS after which another gateway takes a dead one's batches.", min=0.5, **_BOUNDS)
]
OnDisconnect = Annotated[
    Disconnect, flag("--on-disconnect", "What becomes of the jobs of a client that goes away.", **_LISTEN)
]
DefaultMaxTokens = Annotated[
    int, flag("--default-max-tokens", "At most N tokens for a chat that names no number.", min=1, **_BOUNDS)
]
MaxBody = Annotated[
    int, flag("--max-body", "Largest body of a request, in bytes; files have 200 MiB.", min=1, **_BOUNDS)
]
MaxConnections = Annotated[int, flag("--max-connections", "At most N at a time; the next is closed.", min=1, **_BOUNDS)]
Ping = Annotated[
    float, flag("--ping", "An empty chunk after so many SECONDS in which a stream had none.", min=0.01, **_BOUNDS)
]
Slow = Annotated[
    float,
    flag("--slow", "A client has SECONDS for its headers, and to take what it is sent.", min=0.01, **_BOUNDS),
]
Drain = Annotated[
    float, flag("--drain", "On SIGTERM, SECONDS for what is under way; jobs go on after that.", min=0, **_BOUNDS)
]

_BATCH = {"rich_help_panel": "The batch"}
Endpoint = Annotated[
    str | None, flag("--endpoint", "What the lines ask, such as /v1/completions (default: the first's url).", **_BATCH)
]
BatchWindow = Annotated[str, flag("--window", "The time it has, of 1m to 7d; what is late is listed so.", **_BATCH)]
BatchWait = Annotated[bool, flag("--wait", "Wait for its end, and show how far it is.", **_BATCH)]
BatchesOf = Annotated[str | None, flag("--agent", "Only this agent's.")]
BatchOut = Annotated[Path | None, flag("--out", "Where the answers go (default: stdout).")]
BatchErrors = Annotated[Path | None, flag("--errors", "Where the lines with errors go.")]

GpuPrice = Annotated[float, flag("--gpu-price", "Dollars that a GPU costs an hour.", min=0)]
GpuHours = Annotated[float | None, flag("--gpu-hours", "GPU hours paid for, if more than workers were up.")]
FullAt = Annotated[float, flag("--full-at", "Busy share at which a GPU counts as full.")]
Capacity = Annotated[float | None, flag("--capacity", "New tokens/s of one full GPU, from a benchmark of yours.")]
PersonaTokens = Annotated[int, flag("--persona-tokens", "Prompt tokens that would stand in for an adapter.")]
SwapSeconds = Annotated[float | None, flag("--swap-seconds", "To swap a merged model (default: a worker's load time).")]
Since = Annotated[Path | None, flag("--since", "Only what was counted after this earlier bill (JSON).")]
Plot = Annotated[Path | None, flag("--plot", "Write a plot, such as cost.png; needs the extra `plots`.")]
