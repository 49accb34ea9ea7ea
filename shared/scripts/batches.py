"""Batches: the fields of what the scripts of stored files and batches take, each in its order; see records.py."""

from __future__ import annotations

from typing import NamedTuple

from lorapool.shared.scripts.rows import Records, fields_by_name


class FileBegin(NamedTuple):
    """Then field, value, ..."""

    id: str
    agent: str
    ttl_ms: int
    most: int  # files of one agent
    most_bytes: int


class FileEnd(NamedTuple):
    id: str
    ttl_ms: int
    purpose: str
    bytes: int
    sha256: str


class FileRemove(NamedTuple):
    id: str
    step: str  # begin | end


class BatchAdd(NamedTuple):
    """Then field, value, ..."""

    id: str
    agent: str
    input_file: str
    window_s: int
    most_open: int  # of one agent


class BatchTake(NamedTuple):
    holder: str
    token: str  # "": none now, only a sign of life
    lease_ms: int
    beat_ms: int
    per_agent: int  # held at a time, by all holders


class BatchRenew(NamedTuple):
    id: str
    token: str
    lease_ms: int


class BatchRelease(NamedTuple):
    id: str
    token: str
    pause_ms: int
    trouble: str


class BatchMove(NamedTuple):
    id: str
    token: str
    status: str
    total: int


class BatchCommit(NamedTuple):
    """Then each line's number."""

    id: str
    token: str
    part: int  # from 0
    name: str
    completed: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    ended_early: int  # 0 | 1


class BatchFinish(NamedTuple):
    """Then BatchFile of each file."""

    id: str
    token: str
    status: str
    errors: str  # JSON


class BatchFile(NamedTuple):
    role: str  # output_file | error_file
    id: str
    name: str
    filename: str
    bytes: int
    sha256: str


class BatchClose(NamedTuple):
    id: str
    token: str


RECORDS: Records = fields_by_name(
    *(
        FileBegin,
        FileEnd,
        FileRemove,
        BatchAdd,
        BatchTake,
        BatchRenew,
        BatchRelease,
        BatchMove,
        BatchCommit,
        BatchFinish,
    ),
    *(BatchFile, BatchClose),
)
