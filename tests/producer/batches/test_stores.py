"""Where contents lie: a folder and an S3 keep the same promises."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from lorapool.producer import Client
from lorapool.producer.batches.content import Reading, Writing
from lorapool.producer.batches.folder_store import FolderStore
from lorapool.producer.batches.store import FileStore, opened, store_at
from lorapool.shared.errors import FilesUnavailable, InvalidRequest
from tests.fleet import until
from tests.producer.batches.conftest import Desk, jsonl, line
from tests.producer.canned_worker import CannedWorker
from tests.s3 import running_s3


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3 with one bucket; the environment leads to it, as it does to a real one."""
    with running_s3("pool"):
        yield "s3://pool/batches"


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> FileStore:
    where = str(tmp_path / "files") if request.param == "folder" else request.getfixturevalue("s3")
    return store_at(f"{where}/{os.urandom(4).hex()}")


def write(store: FileStore, name: str, *pieces: bytes) -> Writing:
    writing = store.writing(name)
    for piece in pieces:
        writing.write(piece)
    writing.close()
    return writing


def read(store: FileStore, name: str, offset: int = 0) -> bytes:
    with closing(store.reading(name, offset)) as reading:
        return b"".join(iter(reading.read, b""))


def test_a_content_comes_back(store: FileStore) -> None:
    """Whole, from anywhere in it, with its size and digest; large ones too."""
    large = os.urandom(9 << 20)
    written = write(store, "files/a", large[:100], large[100:])
    assert (len(large), True) == (written.size, len(written.sha256) == 64)
    assert large == read(store, "files/a")
    assert large[-5:] == read(store, "files/a", len(large) - 5)


def test_names_are_those_of_a_folder(store: FileStore) -> None:
    """Of that folder alone; what is removed is gone, and removing it again is harmless."""
    for name in ("batches/one/b", "batches/one/a", "batches/two/c"):
        write(store, name, b"x")
    assert ["batches/one/a", "batches/one/b"] == store.names("batches/one")
    assert [] == store.names("batches/three")
    for _ in range(2):
        store.remove("batches/one/a")
    assert ["batches/one/b"] == store.names("batches/one")


def test_what_is_given_up_is_not_there(store: FileStore) -> None:
    """Nor is anything else disturbed."""
    write(store, "files/kept", b"x")
    writing = store.writing("files/given-up")
    writing.write(b"half")
    writing.abort()
    assert ["files/kept"] == store.names("files")
    with pytest.raises(FilesUnavailable):
        read(store, "files/given-up")


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """In a word, with the place."""
    writing = FolderStore(tmp_path).writing("files/a")
    writing._file.close()
    full = pytest.raises(FilesUnavailable, match="No space left")
    with Path("/dev/full").open("wb", buffering=0) as writing._file, full:
        writing.write(b"x")


@pytest.mark.parametrize("location", ["ftp://host/x", "https://host", "s3://", "s3://bucket/../x", "memory://x"])
def test_a_location_that_is_none_is_refused(location: str) -> None:
    with pytest.raises(InvalidRequest):
        store_at(location)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a//b", "a/../b", ".hidden", "a/b/c/d", "a b", ""])
def test_no_name_leads_out(tmp_path: Path, name: str) -> None:
    """Names are made here; one that is not such a name is our own mistake."""
    with pytest.raises(AssertionError):
        FolderStore(tmp_path).writing(name)


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    """Whoever could put one there could otherwise have us write elsewhere."""
    store = FolderStore(tmp_path / "files")
    (tmp_path / "files" / "files").mkdir()
    (tmp_path / "files" / "files" / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FilesUnavailable):
        store.writing("files/a")


async def test_a_batch_on_an_object_store(client: Client, worker: CannedWorker, s3: str) -> None:
    """From the file to its answers, and nothing else is left there."""
    desk = Desk(client, await asyncio.to_thread(store_at, f"{s3}/run"))
    async with desk.fed():
        batch = await desk.ended(await desk.batch(jsonl(line(f"q{n}") for n in range(30))))
    assert (30, 30) == (batch.completed, len(await desk.read(batch.output_file)))
    assert [(await client.files.get(batch.output_file)).name] == desk.store.names(f"batches/{batch.id}")


class SlowStore(FolderStore):
    """Opens and reads when it is let; knows what has been closed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.lets, self.closed = threading.Semaphore(0), 0

    def reading(self, name: str, offset: int = 0) -> Reading:
        assert self.lets.acquire(timeout=60)
        reading, slow = super().reading(name, offset), self

        class Slow(Reading):
            def read(self) -> bytes:
                assert slow.lets.acquire(timeout=60)
                return super().read()

            def close(self) -> None:
                super().close()
                slow.closed += 1

        return Slow(name, reading._file)


@pytest.mark.parametrize("lets", [0, 1, 2])
async def test_what_was_opened_is_closed_whenever_its_reader_is_cancelled(tmp_path: Path, lets: int) -> None:
    """While it is opened, and while it is read, by a scope that cancels whatever is awaited on the way out."""
    slow = SlowStore(tmp_path / "files")
    write(slow, "files/a", b"x" * 10)
    pieces: list[bytes] = []

    async def reader() -> None:
        async with opened(slow, "files/a") as reading:
            while piece := await asyncio.to_thread(reading.read):
                pieces.append(piece)

    async with anyio.create_task_group() as group:
        group.start_soon(reader)
        for _ in range(lets):
            slow.lets.release()
        await until(lambda: len(pieces) == max(0, lets - 1))
        group.cancel_scope.cancel()
    slow.lets.release()
    await until(lambda: slow.closed == 1)
