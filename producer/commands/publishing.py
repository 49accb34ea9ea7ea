"""adapters publish, import, verify: trained adapters are brought to a pool, one or many, and verified later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from lorapool.producer.client.client import Client
from lorapool.producer.client.publishing import Imported, Verified
from lorapool.producer.commands import options as o
from lorapool.producer.commands.adapters import described, traits
from lorapool.producer.commands.render import Bar, document, note, say, table
from lorapool.producer.commands.session import run
from lorapool.shared.errors import LorapoolError, NoWorker


def publish(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A trained PEFT checkpoint.")],
    *,
    to: o.PublishTo,
    adapter_id: o.AdapterId = None,
    version: o.AdapterVersion = "1.0.0",
    alias: o.Alias = None,
    metadata: o.Metadata = None,
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
    """Copy a trained adapter to URI/ID/VERSION, which is never overwritten, and register it.

    lorapool adapters publish ./out/cfo --to s3://models/adapters --version 2.1.0 --alias CFO
    """
    given = traits(alias, metadata, prompt_format, chat_template, parent, owner)

    async def work(client: Client) -> None:
        record = await client.adapters.publish(
            folder, to, adapter_id=adapter_id, version=version, wait=not no_wait, timeout=timeout, **given
        )
        if as_json:
            document(described(record))
        else:
            say(f"{record.ref} is {record.status} ({record.digest[:12]}) at {record.uri}")

    act = ("published adapter", f"{adapter_id or folder.name}@{version}")
    run(work, redis_url=redis_url, pool=pool, as_json=as_json, act=act)


def import_(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="A TOML or JSON file; its format by its name.")],
    no_wait: o.NoWait = False,
    timeout: o.ValidationTimeout = 60.0,
    redis_url: o.RedisUrl = None,
    pool: o.Pool = None,
    as_json: o.Json = False,
) -> None:
    """Register every adapter of a manifest. Safe to repeat; failures are listed at the end, and the exit code is 1.

    A manifest is a list of [[adapters]] tables: id, uri (relative to the manifest), version, aliases, owner, metadata,
    digest, prompt_format, parents.
    """

    async def work(client: Client) -> None:
        with Bar("importing") as bar:

            def done(item: Imported) -> None:
                bar.step(item.name)

            imported = await client.adapters.import_manifest(
                manifest, wait=not no_wait, timeout=timeout, on_total=bar.total, on_done=done
            )
        _show_imported(imported, as_json)
        if any(isinstance(item.outcome, LorapoolError) for item in imported):
            raise typer.Exit(1)

    run(work, redis_url=redis_url, pool=pool, as_json=as_json, act=("imported adapters", manifest.name))


def verify(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A ref, alias or id; without, all of them.")
    ] = None,
    worker: o.ByWorker = False,
    timeout: o.VerifyTimeout = 60.0,
    redis_url: o.RedisUrl = None,
    pool: o.Pool = None,
    as_json: o.Json = False,
) -> None:
    """Compute digests anew, and say which files are no longer what was registered. Exit code 1 if any."""

    async def work(client: Client) -> None:
        names = [name] if name else [record.ref for record in await client.adapters.list() if record.status == "ready"]
        with Bar("verifying") as bar:
            bar.total(len(names))
            verdicts = [await _verified(client, each, worker, timeout, bar) for each in names]
        _show_verified(verdicts, as_json)
        if any(item.problem for item in verdicts):
            raise typer.Exit(1)

    run(work, redis_url=redis_url, pool=pool, as_json=as_json)


async def _verified(client: Client, name: str, worker: bool, timeout: float, bar: Bar) -> Verified:
    try:
        return await client.adapters.verify(name, worker=worker, timeout=timeout)
    except NoWorker as error:
        return Verified(name, "", str(error))
    finally:
        bar.step(name)


def _show_imported(imported: Sequence[Imported], as_json: bool) -> None:
    if as_json:
        document([_imported(item) for item in imported])
        return
    failed = [item for item in imported if isinstance(item.outcome, LorapoolError)]
    counted = Counter(item.outcome.status for item in imported if not isinstance(item.outcome, LorapoolError))
    say(", ".join([*(f"{n} {status}" for status, n in sorted(counted.items())), f"{len(failed)} failed"]))
    for item in failed:
        note(f"{item.name}: {item.outcome}", style="red")


def _imported(item: Imported) -> dict[str, object]:
    if isinstance(item.outcome, LorapoolError):
        return {"name": item.name, "error": type(item.outcome).__name__, "message": str(item.outcome)}
    return described(item.outcome)


def _show_verified(verdicts: Sequence[Verified], as_json: bool) -> None:
    if as_json:
        document(
            [{"ref": item.ref, "by": item.by or None, "ok": _ok(item), "problem": item.problem} for item in verdicts]
        )
    elif verdicts:
        words = {True: "same", False: "changed", None: "not seen"}
        table(("ref", "files", "seen by", "problem"), ((v.ref, words[_ok(v)], v.by, v.problem) for v in verdicts))
    else:
        note("this pool serves no adapters yet")


def _ok(item: Verified) -> bool | None:
    """None where nobody saw the files."""
    return not item.problem if item.by else None
