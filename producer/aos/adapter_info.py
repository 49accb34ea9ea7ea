"""AdapterInfo: one adapter version as AOS shows it, made of the pool's record and counters at the time of asking.

Its first ten fields are those of AOS; the rest says what AOS left out. Also how AOS's free metadata becomes the
catalog's strings and back. Asks no server.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from lorapool.producer.client.folder import local_folder
from lorapool.shared.catalog.catalog import AdapterRecord
from lorapool.shared.errors import InvalidRequest

_ROLE = "aos.agent_role"
MAX_METADATA_BYTES = 64 << 10
_JSON = "aos.json"  # names of the values that are JSON

Counters = Mapping[str, int | float]


@dataclass
class AdapterInfo:
    """``agent_role`` is the role asked for, else the one it was registered for, empty when no role means it now.

    ``loaded``: in a slot of some live worker. ``load_count``: copies into slots, ``inference_count``: jobs succeeded,
    both of all workers since registration. ``created_at`` and ``last_used`` are ISO 8601 in UTC.
    """

    adapter_id: str
    agent_role: str
    adapter_path: str
    version: str = "1.0.0"
    created_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat())
    loaded: bool = False
    load_count: int = 0
    inference_count: int = 0
    last_used: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    # not in AOS
    agent_roles: tuple[str, ...] = ()
    status: str = "ready"  # pending: no worker has validated it; refused: with the reason
    reason: str = ""
    base_model: str = ""
    rank: int = 0
    digest: str = ""

    @property
    def ref(self) -> str:
        return f"{self.adapter_id}@{self.version}"

    @classmethod
    def of(
        cls, record: AdapterRecord, *, role: str | None, counters: Counters, last_used_ms: int | None, loaded: bool
    ) -> AdapterInfo:
        folder = local_folder(record.uri)
        return cls(
            adapter_id=record.id,
            agent_role=_role_of(record, role),
            adapter_path=record.uri if folder is None else str(folder),
            version=record.version,
            created_at=_iso(record.registered_ms),
            loaded=loaded,
            load_count=int(counters.get("loads", 0)),
            inference_count=int(counters.get("succeeded", 0)),
            last_used=None if last_used_ms is None else _iso(last_used_ms),
            metadata=decoded(record.metadata),
            agent_roles=record.aliases,
            status=record.status,
            reason=record.reason,
            base_model=record.base_model,
            rank=record.rank,
            digest=record.digest,
        )


def encoded(metadata: Mapping[str, Any] | None, role: str) -> dict[str, str]:
    """Strings as they are, all else as JSON, and how the role was written. Raises InvalidRequest."""
    texts, json_names = {_ROLE: role}, []
    for name, value in (metadata or {}).items():
        if not isinstance(name, str) or name.startswith("aos."):
            raise InvalidRequest(f"metadata {name!r}: expected a name that is text and does not begin with 'aos.'")
        if isinstance(value, str):
            texts[name] = value
            continue
        try:
            texts[name] = json.dumps(value, sort_keys=True)
        except (TypeError, ValueError) as error:
            raise InvalidRequest(f"metadata {name!r}: expected what JSON can hold ({error})") from None
        json_names.append(name)
    texts |= {_JSON: json.dumps(sorted(json_names))} if json_names else {}
    size = sum(len(name.encode()) + len(text.encode()) for name, text in texts.items())
    if size > MAX_METADATA_BYTES:
        raise InvalidRequest(f"metadata of {size:,} bytes: expected at most {MAX_METADATA_BYTES:,}")
    return texts


def decoded(metadata: Mapping[str, str]) -> dict[str, Any]:
    """As it was given to ``encoded``; of a record from elsewhere, its strings."""
    json_names = _parsed(metadata.get(_JSON, "[]"))
    own = {name: text for name, text in metadata.items() if not name.startswith("aos.")}
    if not isinstance(json_names, list):
        return dict(own)
    return {name: _parsed(text) if name in json_names else text for name, text in own.items()}


def _parsed(text: str) -> Any:
    """What it says as JSON; what is none, since anybody may write a record, is text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _role_of(record: AdapterRecord, asked: str | None) -> str:
    if asked is not None:
        return asked
    first = record.metadata.get(_ROLE, "")
    if first.casefold() in record.aliases:
        return first
    return record.aliases[0] if record.aliases else ""


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()
