"""Adapters are published, imported from manifests, and looked at again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from redis.asyncio import Redis
from typer.testing import Result as Outcome

from lorapool.producer import AdapterConflict, CheckpointError, Client, InvalidRequest, NoWorker
from lorapool.producer.client.publishing import Verified
from lorapool.producer.sync import Client as SyncClient
from lorapool.shared import remote
from lorapool.shared.digest import adapter_digest
from tests.fleet import alive, fake_worker
from tests.producer.canned_worker import CannedWorker

Run = Callable[..., Outcome]
Make = Callable[..., Path]
WEIGHTS = "adapter_model.safetensors"


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def test_a_folder_is_published_under_its_id_and_version(
    client: Client, worker: CannedWorker, make_adapter: Make, tmp_path: Path
) -> None:
    """Only what belongs to an adapter is copied; it is registered where it went; once more changes nothing."""
    folder = make_adapter()
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    (folder / "optimizer.pt").write_bytes(b"large")
    record = await client.adapters.publish(folder, tmp_path / "models", version="2.1", aliases=["Boss"])
    assert record == await client.adapters.publish(folder, tmp_path / "models", version="2.1", aliases=["Boss"])
    place = tmp_path / "models" / "cfo" / "2.1"
    assert ["adapter_config.json", WEIGHTS, "chat_template.jinja"] == names(place)
    assert ("cfo@2.1", "ready", place.as_uri(), ("boss",)) == (record.ref, record.status, record.uri, record.aliases)
    assert ["cfo/2.1/adapter_config.json"] == [name for name in names(tmp_path / "models") if "config" in name]


async def test_what_is_published_is_never_overwritten(client: Client, make_adapter: Make, tmp_path: Path) -> None:
    """Other content for the same version is a conflict; the files there stay."""
    await client.adapters.publish(make_adapter(), tmp_path / "models", wait=False)
    with pytest.raises(AdapterConflict, match=r"holds digest \w+…, these files have"):
        await client.adapters.publish(make_adapter(salt="x"), tmp_path / "models", adapter_id="cfo", wait=False)
    assert adapter_digest(tmp_path / "cfo") == adapter_digest(tmp_path / "models" / "cfo" / "1.0.0")


async def test_what_no_worker_could_serve_is_not_published(client: Client, make_adapter: Make, tmp_path: Path) -> None:
    """Nothing is copied, and nothing registered."""
    folder = make_adapter()
    (folder / WEIGHTS).write_bytes(b"\xff" * 64)
    with pytest.raises(CheckpointError):
        await client.adapters.publish(folder, tmp_path / "models")
    with pytest.raises(InvalidRequest, match="version"):
        await client.adapters.publish(make_adapter(salt="x"), tmp_path / "models", version="../../etc")
    assert not (tmp_path / "models").exists()
    assert [] == await client.adapters.list()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An in-memory store."""
    monkeypatch.setitem(remote.SCHEMES, "memory", "fsspec")
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    yield memory
    memory.store.clear()


async def test_a_store_is_published_to_and_verified(client: Client, bucket: Any, make_adapter: Make) -> None:
    """The config comes last, so that what has one is whole; changed bytes are told."""
    record = await client.adapters.publish(make_adapter(), "memory://models/", wait=False)
    assert ("memory://models/cfo/1.0.0", 4, "tiny") == (record.uri, record.rank, record.base_model)
    assert [WEIGHTS, "adapter_config.json"] == [path.rpartition("/")[2] for path in bucket.store]
    assert "" == (await client.adapters.verify("cfo")).problem
    bucket.pipe(f"/models/cfo/1.0.0/{WEIGHTS}", b"others")
    assert "files have changed" in (await client.adapters.verify("cfo")).problem
    with pytest.raises(AdapterConflict):
        await client.adapters.publish(make_adapter(salt="x"), "memory://models", adapter_id="cfo", wait=False)
    bucket.rm("/models/cfo/1.0.0/adapter_config.json")
    verified = await client.adapters.verify("cfo")
    assert ("client", "memory://models/cfo/1.0.0: has no adapter_config.json") == (verified.by, verified.problem)


async def test_drift_is_seen_from_here_and_by_a_worker(
    redis_url: str, redis: Redis, client: Client, make_adapter: Make
) -> None:
    """The client sees changed files; a worker answers for itself; where nobody looks nobody is blamed."""
    folder = make_adapter()
    async with Client(redis_url) as pool:
        record = await pool.adapters.register("cfo", folder, wait=False)
        with pytest.raises(NoWorker):
            await pool.adapters.verify("cfo", worker=True)
        with fake_worker(redis_url):
            await alive(redis, "w1")
            verified = await pool.adapters.verify("cfo", worker=True)
        assert ("cfo@1.0.0", "w1", "") == (verified.ref, verified.by, verified.problem)
        (folder / "adapter_config.json").write_text("{}")
        verified = await pool.adapters.verify("cfo")
        assert "client" == verified.by
        assert f"registered as {record.digest[:12]}…: the files have changed" in verified.problem
        await pool.adapters.register("far", "nfs://x/y", digest="d" * 64, wait=False)
        assert Verified("far@1.0.0", by="", problem="") == await pool.adapters.verify("far")


TOML = """
[[adapters]]
id = "cfo"
uri = "cfo"
aliases = ["CFO", "ceo.finance"]
owner = "finance"
prompt_format = { kind = "custom", suffix = "\\n###\\n" }

[[adapters]]
id = "bad"
uri = "bad"

[[adapters]]
id = "nowhere"
uri = "nowhere"

[[adapters]]
id = "odd"
hue = "blue"
"""


def test_a_manifest_is_imported(run: Run, threaded_worker: None, make_adapter: Make, tmp_path: Path) -> None:
    """What can be registered is; each that cannot is told at the end, with its reason; exit code 1. Safe to repeat."""
    make_adapter("cfo")
    make_adapter("bad")
    (tmp_path / "pool.toml").write_text(TOML)
    for _ in range(2):
        outcome = run("adapters", "import", str(tmp_path / "pool.toml"))
        assert (1, "1 ready, 3 failed\n") == (outcome.exit_code, outcome.stdout)
        assert [
            "bad@1.0.0: adapter bad@1.0.0 was refused by a worker: no tensor of it applies",
            f"nowhere@1.0.0: {tmp_path}/nowhere: has no adapter_config.json",
            "item 4: uri = {'id': 'odd', 'hue': 'blue'}: Field required; hue = 'blue': Extra inputs are not permitted",
        ] == outcome.stderr.splitlines()
    shown = json.loads(run("adapters", "show", "ceo.finance", "--json").stdout)
    assert ("cfo@1.0.0", "finance", "\n###\n") == (shown["ref"], shown["owner"], shown["prompt_format"]["suffix"])


def test_an_import_tells_a_program_what_became_of_each(
    run: Run, threaded_worker: None, make_adapter: Make, tmp_path: Path
) -> None:
    """JSON in, JSON out, in the manifest's order."""
    items = [{"id": "nowhere", "uri": "/nowhere"}, {"id": "cfo", "uri": make_adapter().as_uri()}]
    (tmp_path / "pool.json").write_text(json.dumps(items))
    outcome = run("adapters", "import", str(tmp_path / "pool.json"), "--json")
    first, second = json.loads(outcome.stdout)
    assert (1, "CheckpointError", "cfo@1.0.0") == (outcome.exit_code, first["error"], second["ref"])


def test_the_home_of_nobody_is_told_by_item(run: Run, tmp_path: Path) -> None:
    """A ``~`` that stands for no user of this machine."""
    (tmp_path / "pool.json").write_text(json.dumps([{"id": "cfo", "uri": "~nobody-of-that-name/cfo"}]))
    outcome = run("adapters", "import", str(tmp_path / "pool.json"))
    assert (1, "1 failed\n") == (outcome.exit_code, outcome.stdout)
    assert outcome.stderr.startswith("cfo@1.0.0: path '~nobody-of-that-name/cfo': no such user on this machine")


@pytest.mark.parametrize(
    ("name", "text"), [("m.toml", "= 1"), ("m.json", "["), ("m.json", '"x"'), ("m.json", "{}"), ("none.json", None)]
)
def test_what_is_no_manifest_is_refused(run: Run, tmp_path: Path, name: str, text: str | None) -> None:
    """In one line that names the file."""
    if text is not None:
        (tmp_path / name).write_text(text)
    outcome = run("adapters", "import", str(tmp_path / name))
    assert (1, 1) == (outcome.exit_code, outcome.stderr.count("\n"))
    assert name in outcome.stderr


def test_files_are_published_and_verified_from_the_command_line(
    run: Run, threaded_worker: None, make_adapter: Make, tmp_path: Path
) -> None:
    """What a person reads, and the exit code of drift."""
    models = tmp_path / "models"
    outcome = run("adapters", "publish", str(make_adapter()), "--to", str(models), "--id", "money", "--owner", "cfo")
    assert outcome.stdout.startswith("money@1.0.0 is ready (")
    assert outcome.stdout.endswith(f"at {(models / 'money' / '1.0.0').as_uri()}\n")
    outcome = run("adapters", "verify")
    assert (0, ["money@1.0.0", "same", "client", "-"]) == (outcome.exit_code, outcome.stdout.splitlines()[1].split())
    (models / "money" / "1.0.0" / "adapter_config.json").write_text("{}")
    outcome = run("adapters", "verify", "money", "--json")
    [verified] = json.loads(outcome.stdout)
    assert (1, "client", False) == (outcome.exit_code, verified["by"], verified["ok"])
    assert "files have changed" in verified["problem"]


def test_flags_say_how_messages_are_written(run: Run, make_adapter: Make, tmp_path: Path) -> None:
    """A kind, JSON, or a template from a file; nonsense is a usage error."""
    (tmp_path / "own.jinja").write_text("{{ messages }}")
    for version, flags, expected in (
        ("1", ["--prompt-format", "raw"], ("raw", "", "")),
        ("2", ["--prompt-format", '{"suffix": "\\n###\\n"}'], ("custom", "\n###\n", "")),
        ("3", ["--chat-template", str(tmp_path / "own.jinja")], ("chat", "", "{{ messages }}")),
    ):
        folder = str(make_adapter(salt=version))
        run("adapters", "register", "cfo", folder, "--version", version, "--no-wait", *flags)
        form = json.loads(run("adapters", "show", f"cfo@{version}", "--json").stdout)["prompt_format"]
        assert expected == (form["kind"], form["suffix"], form["template"])
    assert 2 == run("adapters", "register", "x", "/x", "--prompt-format", "{nonsense").exit_code
    assert 1 == run("adapters", "register", "x", "/x", "--prompt-format", "jinja", "--no-wait").exit_code


def test_the_blocking_twin_has_all_of_it(
    redis_url: str, pool_name: str, threaded_worker: None, make_adapter: Make, tmp_path: Path
) -> None:
    """publish, import, verify, alias, rollback, history, unalias, remove."""
    (tmp_path / "pool.json").write_text(json.dumps([{"id": "cto", "uri": str(make_adapter("cto"))}]))
    with SyncClient(redis_url, pool=pool_name) as pool:
        first = pool.adapters.publish(make_adapter(), tmp_path / "models")
        [second] = pool.adapters.import_manifest(tmp_path / "pool.json")
        assert "cto@1.0.0" == second.name
        assert "client" == pool.adapters.verify("cfo").by
        for ref in (first.ref, second.name):
            pool.adapters.alias("boss", ref)
        assert first.ref == pool.adapters.rollback("boss").ref
        assert ["rollback", "set", "set"] == [move.how for move in pool.adapters.history("boss")]
        assert first.ref == pool.adapters.unalias("boss")
        assert "removed" == pool.adapters.remove(first.ref).state
