"""Registration: what a caller says of a version, before its files are looked at, as a record. Asks nobody."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from lorapool.shared.catalog.adapter_record import AdapterRecord
from lorapool.shared.errors import InvalidRequest
from lorapool.shared.job import check_name
from lorapool.shared.prompt_format import PromptFormat

_PARENT = re.compile(r"[\w./@-]{1,256}")


def described(
    adapter_id: str,
    version: str,
    *,
    aliases: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
    prompt_format: PromptFormat | Mapping[str, str] | str | None = None,
    parents: Sequence[str] = (),
    owner: str = "",
) -> AdapterRecord:
    """Its digest and uri are those of files, and so not there yet. Raises InvalidRequest."""
    return AdapterRecord(
        id=check_name("adapter id", adapter_id),
        version=check_name("version", version),
        digest="",
        uri="",
        aliases=tuple(check_name("alias", alias) for alias in aliases),
        metadata=dict(metadata or {}),
        prompt_format=None if prompt_format is None else PromptFormat.of(prompt_format),
        parents=tuple(_parent(name) for name in parents),
        owner=owner,
    )


def _parent(name: str) -> str:
    if isinstance(name, str) and _PARENT.fullmatch(name):
        return name
    raise InvalidRequest(f"parents: {name!r:.60}: expected a ref, an adapter id or a model's name")
