"""PoolConfig: what all workers of a pool agree on. Knows no Redis."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

LAYOUT_VERSION = 2  # of keys and hashes: what has another one does not share a pool


class PoolConfig(BaseModel):
    """Written once per pool. ``digest`` is that of the base model's weights; ``dtype`` the pool's policy."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    base_model: str
    revision: str = ""
    digest: str = ""
    dtype: str = ""
    partitions: Annotated[int, Field(ge=1, le=4096)] = 1
    layout: int = LAYOUT_VERSION
