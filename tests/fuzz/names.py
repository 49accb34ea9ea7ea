"""Names, refs, aliases, job ids and uris: whatever a caller says of an adapter or a job."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from lorapool.producer.client.adapters import _exact
from lorapool.producer.client.folder import as_uri, describe
from lorapool.producer.client.registration import _parent
from lorapool.shared.catalog.aliases import alias_of
from lorapool.shared.errors import LorapoolError
from lorapool.shared.job import check_name
from lorapool.shared.redaction import redact
from lorapool.shared.remote import check_place, check_uri, is_remote, is_under
from lorapool.shared.server import keys
from lorapool.worker.adapters.confined import confined
from tests.fuzz import mutation
from tests.fuzz.target import Target

NAMES = ("cfo", "cfo@1.0.0", "CEO.leadership", "0.j1a2-b3", "j0123456789a-0123456789abcdef", "_base", "client-ab12")
URIS = (
    "file:///adapters/cfo", "/adapters/cfo", "s3://bucket/adapters/cfo", "hf://org/name@main", "memory://a/b",
    "gs://b/c",
    "file://localhost/adapters/../etc", "file:///adapters/%2e%2e/%00", "s3://user:secret@bucket/x", "az://c/x?sas=1#f",
)  # fmt: skip


def draw_name(random: Random) -> Any:
    name = random.choice(NAMES)
    return mutation.value(random) if random.random() < 0.2 else mutation.changed_text(random, name)


def check_names(name: Any) -> None:
    """A name is refused, or is a word that keys and replies can be made of; ids come apart and together again."""
    for check in (keys.check_job_id, lambda text: check_name("agent", text), alias_of, _exact_text, _parent):
        with suppress(LorapoolError):
            found = check(name)
            assert not set(found) & set(" \t\r\n\0{}:"), found
            assert found.encode()
    if isinstance(name, str):
        partition, bare = keys.split_id(name)
        assert bare == keys.bare_id(name) and (partition is None or partition >= 0)
        keys.issued_ms(name)
        assert 0 <= keys.partition_of("_base", name.encode(errors="replace").decode(), 4) < 4


def _exact_text(name: Any) -> str:
    for part in _exact(str(name)).split("@"):
        check_name("adapter", part)
    return str(name)


def draw_uri(random: Random) -> str:
    return mutation.changed_text(random, random.choice(URIS)) if random.random() < 0.9 else mutation.text(random)


@cache
def _root() -> Path:
    return Path(tempfile.gettempdir()).resolve()


def check_uris(uri: str) -> None:
    """A uri is refused by every reader, or stays within what is allowed; no password is shown."""
    with suppress(LorapoolError):
        describe(as_uri(uri), None if not is_remote(uri) else "ab" * 32)
    with suppress(LorapoolError):
        assert confined(uri, [_root()]).is_relative_to(_root())
    for check in (check_uri, check_place):
        with suppress(LorapoolError):
            is_under(check(uri), ("s3://bucket/adapters",))
    assert "://user:secret@" not in redact(uri)


TARGETS = (Target("names", draw_name, check_names), Target("uris", draw_uri, check_uris, limit_s=3.0))
