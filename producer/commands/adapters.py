"""adapters ls, show, register, alias: the pool's adapters from the command line."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from lorapool.producer.client import Client
from lorapool.producer.commands import options as o
from lorapool.producer.commands.session import run
from lorapool.producer.render import document, fields, note, plain, say, seconds, table
from lorapool.shared.catalog import AdapterRecord

app = typer.Typer(help="List, show, register and alias adapters.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="A ref (id@version), an alias or an id.")]


@app.command()
def ls(redis_url: o.RedisUrl = None, pool: o.Pool = None, as_json: o.Json = False) -> None:
    """List every adapter version and whether it is ready to serve."""

    async def work(client: Client) -> None:
        records = await client.adapters.list()
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
    uri: Annotated[str, typer.Argument(metavar="FOLDER", help="A PEFT checkpoint folder that the workers see too.")],
    version: o.AdapterVersion = "1.0.0",
    alias: o.Alias = None,
    metadata: o.Metadata = None,
    digest: o.Digest = None,
    no_wait: o.NoWait = False,
    timeout: o.ValidationTimeout = 60.0,
    redis_url: o.RedisUrl = None,
    pool: o.Pool = None,
    as_json: o.Json = False,
) -> None:
    """Make an adapter known to the pool and wait until a worker has validated it.

    lorapool adapters register cfo ./adapters/cfo --alias CFO
    """

    async def work(client: Client) -> None:
        record = await client.adapters.register(
            adapter_id,
            uri,
            version=version,
            aliases=alias or (),
            metadata=dict(_pair(item) for item in metadata or ()),
            digest=digest,
            wait=not no_wait,
            timeout=timeout,
        )
        if as_json:
            document(described(record))
        else:
            say(f"{record.ref} is {record.status} ({record.digest[:12]})")

    run(work, redis_url=redis_url, pool=pool, as_json=as_json)


@app.command()
def alias(
    name: Annotated[str, typer.Argument(metavar="ALIAS", help="The name to set, such as an agent's role.")],
    ref: Annotated[str, typer.Argument(metavar="REF", help="What it shall mean: a ref, an id or another alias.")],
    redis_url: o.RedisUrl = None,
    pool: o.Pool = None,
    as_json: o.Json = False,
) -> None:
    """Point a name at an adapter version. New jobs follow within a second; running ones stay."""

    async def work(client: Client) -> None:
        record = await client.adapters.alias(name, ref)
        if as_json:
            document(described(record))
        else:
            say(f"{name} is now {record.ref}")

    run(work, redis_url=redis_url, pool=pool, as_json=as_json)


def described(record: AdapterRecord) -> dict[str, object]:
    """A record as JSON-ready data, its ref first."""
    return {"ref": record.ref, **plain(record)}


def _row(record: AdapterRecord) -> tuple[object, ...]:
    age_ms = time.time() * 1000 - record.registered_ms if record.registered_ms else None
    return record.ref, record.status, record.rank, record.aliases, record.digest[:12], seconds(age_ms)


def _show(record: AdapterRecord, as_json: bool) -> None:
    shown = described(record)
    if as_json:
        document(shown)
        return
    shown["metadata"] = [f"{key}={value}" for key, value in record.metadata.items()]
    shown["registered"] = datetime.fromtimestamp(record.registered_ms / 1000, UTC).isoformat(" ", "seconds")
    fields({name: value for name, value in shown.items() if name not in {"id", "version", "registered_ms"}})


def _pair(item: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    if not key or not equals:
        raise typer.BadParameter(f"{item!r:.60}: expected KEY=VALUE", param_hint="--metadata")
    return key, value
