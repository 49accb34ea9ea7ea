"""WorkerConfig: everything that a worker can be told, frozen, checked once.

Knows names, units, defaults and what does not go together. Reads no environment and no files: the command line
does that. Unknown keys are refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from lorapool.shared.errors import InvalidRequest
from lorapool.shared.job import Name
from lorapool.shared.wire import explain_validation

_SIZE = re.compile(r"(?P<number>\d{1,18}(?:\.\d{1,18})?)\s*(?P<unit>(?:[kmgt]i?)?b?)", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}

PolicyKind = Literal["affinity", "arrival"]  # how to choose what to claim: loop/affinity.py
DtypeName = Literal["auto", "float32", "bfloat16", "float16"]
DeviceName = Annotated[str, StringConstraints(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]


class WorkerConfig(BaseModel):
    """One worker: one base model on one device, for one pool."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    worker_id: Name
    pool: Name = "default"
    base_model: Annotated[str, StringConstraints(min_length=1)]  # a folder, or a hub id with @revision
    device: DeviceName = "auto"
    dtype: DtypeName = "auto"
    slots: Annotated[int, Field(ge=1, le=4096)] = 8  # adapters resident on the device
    max_rank: Annotated[int, Field(ge=1, le=1024)] = 64
    host_cache_bytes: Annotated[int, Field(ge=0)] = 2 * 2**30
    kv_cache_bytes: Annotated[int, Field(ge=2**20)] | None = None  # None: as much as the batch can use
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    max_batch: Annotated[int, Field(ge=1, le=4096)] = 64  # rows of one step
    claim_ahead: Annotated[int, Field(ge=0, le=4096)] | None = None  # claimed jobs that wait for a row; None: a quarter
    max_model_len: Annotated[int, Field(ge=2)] | None = None  # None: the model's own limit
    adapter_roots: tuple[Path, ...] = ()  # folders that file:// adapters may come from
    adapter_places: tuple[str, ...] = ()  # uris below which remote adapters may lie
    adapter_cache: Path = Path("~/.cache/lorapool/adapters")  # what was fetched, by digest
    claim_size: Annotated[int, Field(ge=1, le=64)] = 32  # jobs, at most, in one claim
    claim_policy: PolicyKind = "affinity"
    starvation_s: Annotated[float, Field(gt=0)] = 10.0
    lease_s: Annotated[float, Field(ge=0.5, le=3600)] = 15.0
    step_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 120.0  # a step that takes longer hangs
    grace_s: Annotated[float, Field(ge=0, le=86_400)] = 30.0
    beat_s: Annotated[float, Field(gt=0, le=60)] = 2.0

    @property
    def rows(self) -> int:
        """Jobs held at a time: those of a step, and those that are ready to take the rows that it frees."""
        ahead = max(2, self.max_batch // 4) if self.claim_ahead is None else self.claim_ahead
        return self.max_batch + ahead

    @property
    def lease_ms(self) -> int:
        return round(self.lease_s * 1000)

    @classmethod
    def parse(cls, **fields: Any) -> WorkerConfig:
        """Validate, turning pydantic's complaint into one InvalidRequest line that names every bad field."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise InvalidRequest(explain_validation(error)) from None


def parse_bytes(text: str) -> int:
    """``"512MiB"``, ``"2GB"`` or ``"1048576"`` as bytes; raises InvalidRequest on anything else."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidRequest(f"size {text!r} is not understood: expected bytes, such as 2GiB, 500MB or 1048576")
    return round(float(match["number"]) * _UNITS[match["unit"].lower().removesuffix("b")])
