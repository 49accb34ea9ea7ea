"""FileRecord: what a pool knows of one stored file: whose it is, what it is for, where its content lies.

The content is elsewhere (producer/batches/store.py). Knows no Redis. Times are milliseconds of the server's clock.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from lorapool.shared.job import Name

Count = Annotated[int, Field(ge=0, lt=2**53)]
STORE_NAME = r"([A-Za-z0-9_-]+/){0,2}[A-Za-z0-9_-]+"  # of a content: folders and a name, all made here
StoreName = Annotated[str, StringConstraints(pattern=rf"^{STORE_NAME}$", max_length=200)]


class FileStatus(StrEnum):
    """uploading → processed → removing; one that is not through within the hour is removed."""

    UPLOADING = "uploading"
    PROCESSED = "processed"
    REMOVING = "removing"


class FileRecord(BaseModel):
    """``name`` is where the content lies below the files' location: never a caller's word. ``filename`` is a caller's
    word, and only shown."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: Name
    agent: Name
    filename: str
    name: StoreName
    purpose: str = ""
    status: FileStatus = FileStatus.UPLOADING
    bytes: Count = 0
    sha256: str = ""
    created_ms: Count = 0
    expires_ms: Count = 0
