"""CompletionId: what an answer is called, from which its jobs follow: any replica finds them, and none keeps a list.

``chatcmpl-<job>`` for one job, ``chatcmpl-<stem>.n3`` for the three jobs ``<stem>-0`` to ``<stem>-2``. With an
``Idempotency-Key`` the stem is made of that and of the caller's key, so that two callers never share a job.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b

from lorapool.producer.gateway.caller import Caller
from lorapool.producer.gateway.errors import ApiError, invalid
from lorapool.producer.gateway.parameters import MAX_ANSWERS
from lorapool.shared.server.keys import new_job_id

CHAT, PLAIN = "chatcmpl", "cmpl"
_FORM = re.compile(r"(chatcmpl|cmpl)-([A-Za-z0-9][A-Za-z0-9_-]{0,99})(?:\.n([1-9][0-9]{0,2}))?")
_KEY = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,254}")


@dataclass(frozen=True, slots=True)
class CompletionId:
    kind: str
    stem: str
    answers: int = 1

    def __str__(self) -> str:
        return f"{self.kind}-{self.stem}" + (f".n{self.answers}" if self.answers > 1 else "")

    @property
    def jobs(self) -> list[str]:
        """The id of each answer's job."""
        return [self.stem] if self.answers == 1 else [f"{self.stem}-{index}" for index in range(self.answers)]

    @classmethod
    def new(cls, kind: str, answers: int, idempotency_key: str | None, caller: Caller) -> CompletionId:
        """Of a request that comes in. Raises ApiError for a key that is none."""
        return cls(kind, new_job_id() if idempotency_key is None else keyed(idempotency_key, caller), answers)

    @classmethod
    def parse(cls, text: str) -> CompletionId:
        """Raises ApiError for what this gateway calls nothing."""
        match = _FORM.fullmatch(text)
        answers = int(match[3] or 1) if match else 0
        if match is None or answers > MAX_ANSWERS:
            raise ApiError(404, f"no completion {text[:80]!r}", code="not_found")
        return cls(match[1], match[2], answers)


def keyed(idempotency_key: str, caller: Caller) -> str:
    """The job id that an ``Idempotency-Key`` of that caller stands for."""
    if not _KEY.fullmatch(idempotency_key):
        raise invalid("Idempotency-Key: expected 1 to 255 printable ASCII characters", param="Idempotency-Key")
    whole = f"{caller.key or ''}\0{idempotency_key}"
    return f"i{blake2b(whole.encode(), digest_size=16).hexdigest()}"
