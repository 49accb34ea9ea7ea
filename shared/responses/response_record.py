"""ResponseRecord: what a job does not keep of the response that it is: the request's echo, and what was put in.

The answer, its state and its times are the job's own record. Knows no Redis.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from lorapool.shared.errors import PayloadTooLarge
from lorapool.shared.job import Name
from lorapool.shared.malformed import required
from lorapool.shared.wire import Wire

MAX_BYTES = 4 << 20


class ResponseRecord(Wire):
    """``id`` is the bare id of its job, ``agent`` whose it is. ``echo``: fields of the request that the response
    repeats. ``items``: what was put in, earlier turns first. ``created_ms`` by the gateway's clock."""

    id: Name
    agent: Name
    created_ms: int
    background: bool = False
    echo: dict[str, Any]
    items: tuple[dict[str, Any], ...]

    def encode(self) -> bytes:
        """JSON, for people with redis-cli too. Raises PayloadTooLarge."""
        encoded = json.dumps(self.model_dump(), ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
        if len(encoded) > MAX_BYTES:
            raise PayloadTooLarge(
                f"the response and what was put in takes {len(encoded):,} bytes, at most {MAX_BYTES:,} are kept: put "
                "in less, begin a new conversation, or say store = false"
            )
        return encoded

    @classmethod
    def decode(cls, encoded: bytes) -> ResponseRecord:
        """Of ``encode``; fields of newer releases are ignored. Raises MalformedEntry."""
        return required("the record of a response", lambda: _of(cls, encoded))


def _of(kind: type[ResponseRecord], encoded: bytes) -> ResponseRecord:
    fields = json.loads(encoded)
    try:
        return kind.model_validate({name: value for name, value in fields.items() if name in kind.model_fields})
    except ValidationError as error:
        raise ValueError(f"{error.error_count()} fields are wrong") from error
