"""Assembly: a batch's parts become its output file and its error file; what is left over is cleared away.

Blocking: callers go through threads. Done again by another holder it makes the same files under other names, of which
the batch refers to one.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from lorapool.producer.batches.content import Writing
from lorapool.producer.batches.pen import BAD, GOOD, content_of, folder_of
from lorapool.producer.batches.store import FileStore
from lorapool.shared.batches.batch_book import Lease, Written

ROLES = {GOOD: ("output_file", "output"), BAD: ("error_file", "errors")}


def assembled(store: FileStore, lease: Lease, parts: Sequence[str]) -> list[Written]:
    """The files, if there is anything in them. Raises FilesUnavailable."""
    return [file for kind in ROLES if (file := _joined(store, lease, parts, kind)) is not None]


def clear(store: FileStore, batch_id: str, kept: Sequence[str]) -> None:
    """Remove all contents of that batch but these."""
    for name in store.names(folder_of(batch_id)):
        if name not in kept:
            store.remove(name)


def _joined(store: FileStore, lease: Lease, parts: Sequence[str], kind: str) -> Written | None:
    batch_id = lease.batch_id
    names = [name for part in parts if (name := content_of(batch_id, part, kind)) is not None]
    if not names:
        return None
    role, word = ROLES[kind]
    target = f"{folder_of(batch_id)}/{word}-{lease.token}"
    writing = store.writing(target)
    try:
        for name in names:
            _copy(store, name, writing)
        writing.close()
    except BaseException:
        writing.abort()
        raise
    file_id = f"file-{batch_id.removeprefix('batch_')}-{word}"
    return Written(role, file_id, target, f"{batch_id}_{word}.jsonl", writing.size, writing.sha256)


def _copy(store: FileStore, name: str, writing: Writing) -> None:
    with closing(store.reading(name)) as reading:
        while block := reading.read():
            writing.write(block)
