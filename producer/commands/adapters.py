"""adapters ls, show, register, alias, canary, rollback, rm: the pool's adapters from the command line."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from lorapool.producer.client.client import Client
from lorapool.producer.commands import options as o
from lorapool.producer.commands.render import document, fields, note, plain, say, seconds, table
from lorapool.producer.commands.session import run
from lorapool.shared.catalog.aliases import Move
from lorapool.shared.catalog.catalog import AdapterRecord

app = typer.Typer(help="List, show, register, alias and remove adapters.", no_args_is_help=True)
AliasName = Annotated[str, typer.Argument(metavar="ALIAS", help="The name to set, such as an agent's role.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A ref (id@version), an alias or an id.")]


@app.command()
def ls(removed: o.Removed = False, redis_url: o.RedisUrl = None, pool: o.Pool = None, as_json: o.Json = False) -> None:
    """List every adapter version and whether it is ready to serve."""

    async def work(client: Client) -> None:
        records = await client.adapters.list(removed=removed)
        if as_json:
            document([described(record) for record in records])
        elif records:
            table(("ref", "status", "rank", "aliases", "digest", "age"), map(_row, records), right=("rank", "age"))
        else:
            note("this pool has no adapters yet: lorapool adapters register ID FOLDER")

    run(work, redis_url=redis_url, pool=pool, as_json=as_json)


@app.command()
def show(name: Name, redis_url: o.RedisUrl = None, pool: o.Pool = None, as_json: o.Json = False) -> None:
    """Show one adapter: where it is, what it is trained on, why it was refused."""

    async def work(client: Client) -> None:
        _show(await client.adapters.get(name), as_json)

    run(work, redis_url=redis_url, pool=pool, as_json=as_json)


@app.command()
def register(
    adapter_id: Annotated[str, typer.Argument(metavar="ID", help="The adapter's name, such as cfo.")],
    uri: Annotated[str, typer.Argument(metavar="FOLDER", help="A PEFT checkpoint, or its uri, that workers see too.")],
    *,
    version: o.AdapterVersion = "1.0.0",
    alias: o.Alias = None,
    metadata: o.Metadata = None,
    digest: o.Digest = None,
    prompt_format: o.PromptFormat = None,
    chat_template: o.ChatTemplate = None,
    parent: o.Parent = None,
    owner: o.Owner = "",
    no_wait: o.NoWait = False,
    timeout: o.ValidationTimeout = 60.0,
    redis_url: o.RedisUrl = None,
    pool: o.Pool = None,
    as_json: o.Json = False,
) -> None:
    """Make an adapter known to the pool and wait until a worker has validated it.

    lorapool adapters register cfo ./adapters/cfo --alias CFO
    """
    given = traits(alias, metadata, prompt_format, chat_template, parent, owner)

    async def work(client: Client) -> None:
        record = await client.adapters.register(
            adapter_id, uri, version=version, digest=digest, wait=not no_wait, timeout=timeout, **given
        )
        if as_json:
            document(described(record))
        else:
            say(f"{record.ref} is {record.status} ({record.digest[:12]})")

    act = ("registered adapter", f"{adapter_id}@{version}")
    run(work, redis_url=redis_url, pool=pool, as_json=as_json, act=act)


@app.command()
def alias(
    name: AliasName,
    ref: Annotated[str | None, typer.Argument(metavar="REF", help="A ref, an id or another alias.")] = None,
    delete: o.DeleteAlias = False,
    redis_url: o.RedisUrl = None,
    pool: o.Pool = None,
    as_json: o.Json = False,
) -> None:
    """Point a name at an adapter version. New jobs follow within a second; running ones stay.

    Without REF, show where the name points and pointed. Such names are roles, personas, or an agent with a purpose:

    lorapool adapters alias ceo.leadership leadership@2.1
    """
    if ref is not None and delete:
        raise typer.BadParameter("give a REF or --delete, not both", param_hint="REF")
    act = ("deleted alias" if delete else "moved alias", name) if ref is not None or delete else None

    async def work(client: Client) -> None:
        if ref is None and not delete:
            _show_moves(name, await client.adapters.history(name), as_json)
        elif ref is None:
            _deleted(name, await client.adapters.unalias(name), as_json)
        else:
            _moved(name, await client.adapters.alias(name, ref), as_json)

    run(work, redis_url=redis_url, pool=pool, as_json=as_json, act=act)


@app.command()
def canary(
    name: AliasName,
    ref: Annotated[str, typer.Argument(metavar="REF", help="Another version of what the name points at.")],
    percent: o.Percent = 10,
    redis_url: o.RedisUrl = None,
    pool: o.Pool = None,
    as_json: o.Json = False,
) -> None:
    """Let a part of a name's jobs go to another version, to watch it first; moving the name ends that, and so does 0.

    lorapool adapters canary cfo cfo@2.0.0 --percent 10
    """

    async def work(client: Client) -> None:
        await client.adapters.canary(name, ref, percent)
        if as_json:
            document({"alias": name, "ref": ref, "percent": percent})
        else:
            say(f"{percent} % of the jobs of {name} go to {ref}" if percent else f"{name} has no canary")

    run(work, redis_url=redis_url, pool=pool, as_json=as_json, act=("set canary", name))


@app.command()
def rollback(name: AliasName, redis_url: o.RedisUrl = None, pool: o.Pool = None, as_json: o.Json = False) -> None:
    """Point a name back at its earlier version; again, further back. Running jobs stay where they are."""

    async def work(client: Client) -> None:
        _moved(name, await client.adapters.rollback(name), as_json)

    run(work, redis_url=redis_url, pool=pool, as_json=as_json, act=("rolled back alias", name))


@app.command()
def rm(
    ref: Annotated[str, typer.Argument(metavar="REF", help="An exact version, id@version.")],
    force: o.ForceRemoval = False,
    timeout: o.DrainTimeout = 60.0,
    redis_url: o.RedisUrl = None,
    pool: o.Pool = None,
    as_json: o.Json = False,
) -> None:
    """Take a version out of service: no new jobs, the old ones end on it, then it is gone.

    Its files stay where they are, and its ref is never given to other content.
    """

    async def work(client: Client) -> None:
        left = await client.adapters.remove(ref, force=force, timeout=timeout)
        if as_json:
            document({"ref": ref, "state": left.state or "removed", "waiting": left.waiting, "running": left.running})
        elif left.state == "closed":
            say(f"{ref} is closed: {left.waiting} jobs wait and {left.running} run; again, once they have ended")
        else:
            say(f"{ref} is removed")

    run(work, redis_url=redis_url, pool=pool, as_json=as_json, act=("removed adapter", ref))


def traits(
    aliases: Sequence[str] | None,
    metadata: Sequence[str] | None,
    prompt_format: str | None,
    chat_template: Path | None,
    parents: Sequence[str] | None,
    owner: str,
) -> dict[str, Any]:
    """What flags say of an adapter, as ``register`` takes it."""
    return {
        "aliases": aliases or (),
        "metadata": dict(_pair(item) for item in metadata or ()),
        "prompt_format": _format(prompt_format, chat_template),
        "parents": parents or (),
        "owner": owner,
    }


def _format(given: str | None, template: Path | None) -> dict[str, str] | str | None:
    if template is not None:
        return {"kind": given or "chat", "template": _text_of(template)}
    if given is None or not given.lstrip().startswith("{"):
        return given
    try:
        return {"kind": "custom", **json.loads(given)}
    except ValueError as error:
        raise typer.BadParameter(f"{given!r:.60}: not JSON ({error})", param_hint="--prompt-format") from None


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise typer.BadParameter(f"{path}: cannot be read ({error})", param_hint="--chat-template") from None


def described(record: AdapterRecord) -> dict[str, object]:
    """A record as JSON-ready data, its ref first."""
    return {"ref": record.ref, **plain(record)}


def _moved(name: str, record: AdapterRecord, as_json: bool) -> None:
    if as_json:
        document(described(record))
    else:
        say(f"{name} is now {record.ref}")


def _deleted(name: str, before: str, as_json: bool) -> None:
    if as_json:
        document({"alias": name.casefold(), "ref": None, "before": before})
    else:
        say(f"{name} is no alias any more; it was {before}")


def _show_moves(name: str, moves: Sequence[Move], as_json: bool) -> None:
    if as_json:
        now = moves[0].after if moves else ""
        document({"alias": name.casefold(), "ref": now or None, "moves": [asdict(move) for move in moves]})
    elif moves:
        table(("when", "how", "from", "to"), ((_when(m.at_ms), m.how, m.before, m.after) for m in moves))
    else:
        note(f"{name} was never an alias here")


def _when(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(" ", "seconds")


def _row(record: AdapterRecord) -> tuple[object, ...]:
    age_ms = time.time() * 1000 - record.registered_ms if record.registered_ms else None
    return record.ref, record.status, record.rank, record.aliases, record.digest[:12], seconds(age_ms)


def _show(record: AdapterRecord, as_json: bool) -> None:
    shown = described(record)
    if as_json:
        document(shown)
        return
    form = record.prompt_format
    shown["prompt_format"] = form and ", ".join(f"{name} {value!r:.60}" for name, value in form if value)
    if record.judging:
        late = record.judging_until_ms < time.time() * 1000
        shown["judging"] = f"{record.judging}, which has not been heard of since" if late else record.judging
    shown["not_here"] = [f"{worker}: {reason}" for worker, reason in sorted(record.not_here.items())]
    shown["metadata"] = [f"{key}={value}" for key, value in record.metadata.items()]
    shown["registered"] = _when(record.registered_ms)
    fields({name: value for name, value in shown.items() if name not in _UNSHOWN})


_UNSHOWN = {"id", "version", "registered_ms", "judging_until_ms", "judge_deaths", "judges_dead"}


def _pair(item: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    if not key or not equals:
        raise typer.BadParameter(f"{item!r:.60}: expected KEY=VALUE", param_hint="--metadata")
    return key, value
