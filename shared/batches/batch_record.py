"""BatchRecord: one batch: whose, of which file, how far it is. Knows no Redis, no files and no jobs.

Times are milliseconds of the Redis server's clock.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from lorapool.shared.batches.file_record import Count
from lorapool.shared.job import Name

MAX_ERRORS = 50  # faults of a file that are told


class BatchStatus(StrEnum):
    """validating → in_progress → finalizing → completed | expired; validating → failed; the first two → cancelling →
    cancelled."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in _TERMINAL


_TERMINAL = frozenset({BatchStatus.COMPLETED, BatchStatus.FAILED, BatchStatus.EXPIRED, BatchStatus.CANCELLED})


class BatchRecord(BaseModel):
    """``agent``, ``key``, ``adapters`` and ``operator`` are those of who made it: its lines may ask what they may.

    ``total`` counts lines, and is 0 until the file was looked through; ``completed`` and ``failed`` those whose answers
    are kept for good. ``ended_early`` says that lines were given up when its time was over. ``holder`` feeds it while
    its lease lasts; ``trouble`` is why the last one gave it back.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: Name
    agent: Name
    endpoint: str
    input_file: Name
    window_s: Annotated[int, Field(ge=1)]
    status: BatchStatus
    key: Name | None = None
    adapters: tuple[str, ...] = ("*",)
    operator: bool = False
    metadata: dict[str, str] = {}
    total: Count = 0
    completed: Count = 0
    failed: Count = 0
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    errors: tuple[dict[str, Any], ...] = ()
    output_file: Name | None = None
    error_file: Name | None = None
    created_ms: Count = 0
    expires_ms: Count = 0
    in_progress_ms: Count | None = None
    finalizing_ms: Count | None = None
    completed_ms: Count | None = None
    failed_ms: Count | None = None
    expired_ms: Count | None = None
    cancelling_ms: Count | None = None
    cancelled_ms: Count | None = None
    ended_early: bool = False
    holder: str = ""
    lease_until_ms: Count = 0
    trouble: str = ""
