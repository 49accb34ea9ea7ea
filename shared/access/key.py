"""Key: what an API key may ask, and what it has used. Its secret is known to its holder alone.

Pure; knows no connection.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, StringConstraints

from lorapool.shared.job import Name
from lorapool.shared.wire import Wire, parsed

MAX_QUOTA = 10**14
# Of adapter ids; the base model's is `_base`. What fnmatch knows but negation, which a shell would expand.
Pattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._*?\[\]-]{1,128}$")]
Quota = Annotated[int, Field(ge=1, le=MAX_QUOTA)] | None
_SECRET = re.compile(r"lp-[A-Za-z0-9_-]{43}")


class Key(Wire):
    """An API key. ``agent``: who its jobs are counted under; ``adapters``: patterns of ids that it may ask.

    ``window``: how many undelivered jobs that agent may have on one adapter, instead of the adapter's own limit. None
    is no limit, of ``revoked_ms`` that it was not revoked.
    """

    name: Name
    agent: Name
    adapters: Annotated[tuple[Pattern, ...], Field(min_length=1, max_length=64)] = ("*",)
    role: Literal["agent", "operator"] = "agent"
    jobs_per_minute: Quota = None
    tokens_per_day: Quota = None
    window: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    created_ms: int = 0
    revoked_ms: int | None = None

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Key:
        """Raises InvalidRequest."""
        return parsed(cls, "key", given)

    @classmethod
    def of_record(cls, fields: Mapping[str, str]) -> Key:
        """As stored. Raises InvalidRequest for what is not."""
        given: dict[str, Any] = {name: text for name, text in fields.items() if text and name in cls.model_fields}
        return cls.parse({**given, "adapters": tuple(fields.get("adapters", "").split())})

    def stored(self) -> dict[str, str]:
        """The fields of its record that are said when it is added."""
        limits = {name: getattr(self, name) for name in ("jobs_per_minute", "tokens_per_day", "window")}
        numbers = {name: "" if limit is None else str(limit) for name, limit in limits.items()}
        return {"agent": self.agent, "adapters": " ".join(self.adapters), "role": self.role, **numbers}


class KeyUse(NamedTuple):
    """A key, and what it has used: jobs in this minute, and tokens in this day, those reserved for jobs with them."""

    key: Key
    jobs: int
    tokens: int


def new_secret() -> str:
    """Of 256 random bits."""
    return f"lp-{secrets.token_urlsafe(32)}"


def digest_of(secret: str) -> str | None:
    """What is stored of a secret: its sha256. None for what cannot be one."""
    return sha256(secret.encode()).hexdigest() if _SECRET.fullmatch(secret) else None
