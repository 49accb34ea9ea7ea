"""The book of stored files on a real server."""

from __future__ import annotations

import pytest

from lorapool.shared.batches import file_book
from lorapool.shared.batches.batch_book import Lease
from lorapool.shared.batches.batch_record import BatchStatus
from lorapool.shared.batches.file_book import KEPT_S, UPLOAD_S
from lorapool.shared.errors import FileInUse, QueueFull, UnknownFile
from tests.shared.batches.conftest import NOW, Books


async def test_a_file_is_there_once_its_content_is(books: Books) -> None:
    """Until then nobody finds it; then it has size and digest, and is kept for thirty days."""
    begun = await books.file(whole=False)
    with pytest.raises(UnknownFile):
        await books.files.get(begun.id)
    assert ([], False) == await books.files.page("ada")
    ended = await books.files.end(begun.id, purpose="batch", size=7, sha256="ab")
    assert (7, "ab", NOW, NOW + KEPT_S * 1000) == (ended.bytes, ended.sha256, ended.created_ms, ended.expires_ms)
    assert ended == await books.files.get(begun.id)


async def test_the_same_end_again_changes_nothing(books: Books) -> None:
    """A lost reply is asked for again."""
    file = await books.file()
    await books.set_clock(NOW + 5)
    assert file == await books.files.end(file.id, purpose="batch", size=9, sha256="cd")


async def test_an_upload_that_never_ends_is_due_after_an_hour(books: Books) -> None:
    """And whoever comes with its content after it was removed is told."""
    begun, whole = await books.file(whole=False), await books.file()
    await books.set_clock(NOW + UPLOAD_S * 1000)
    assert [begun.id] == await books.files.due(10)
    await remove(books, begun.id)
    with pytest.raises(UnknownFile):
        await books.files.end(begun.id, purpose="batch", size=1, sha256="")
    assert ([whole], False) == await books.files.page("ada")


async def test_pages_go_on_behind_the_last_one(books: Books) -> None:
    """Newest first or last, of one agent, of one purpose; an agent sees no other's."""
    files = []
    for number in range(5):
        await books.set_clock(NOW + number)
        files.append(await books.file())
        await books.file("eve", purpose="vision")
    first, more = await books.files.page("ada", limit=2)
    assert (files[:2:-1], True) == (first, more)
    assert (files[2::-1], False) == await books.files.page("ada", after=first[-1].id, limit=3)
    assert (files[2:], False) == await books.files.page("ada", after=files[1].id, ascending=True)
    assert ([], False) == await books.files.page("ada", purpose="vision")
    assert 10 == len((await books.files.page())[0])


async def test_an_agent_has_a_bounded_number_of_files(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is more is refused, until some are deleted."""
    monkeypatch.setattr(file_book, "MAX_FILES", 2)
    one, _ = await books.file(), await books.file()
    with pytest.raises(QueueFull, match="2 files"):
        await books.file()
    await remove(books, one.id)
    await books.file()


async def test_an_agent_has_a_bounded_number_of_bytes(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own files and what batches wrote for it; a removal gives them back once, a repeated end counts once."""
    monkeypatch.setattr(file_book, "MAX_BYTES", 14)
    one, _ = await books.file(), await books.file()
    await books.files.end(one.id, purpose="batch", size=7, sha256="ab")
    with pytest.raises(QueueFull, match="14 bytes"):
        await books.file()
    await books.file("eve")
    await remove(books, one.id)
    await remove(books, one.id)
    assert {b"ada": b"7", b"eve": b"7"} == await books.redis.hgetall("lp:{test}:files_bytes")
    await books.file()


async def test_a_file_that_a_batch_reads_stays(books: Books) -> None:
    """Until the batch is closed; after that nothing is left of it."""
    batch = await books.batch()
    with pytest.raises(FileInUse):
        await books.files.begin_removal(batch.input_file)
    lease = await books.taken()
    assert await books.batches.finish(lease, BatchStatus.FAILED)
    with pytest.raises(FileInUse):
        await books.files.begin_removal(batch.input_file)
    await books.batches.close(lease)
    await remove(books, batch.input_file)
    assert not [key for key in await books.redis.keys("*file*") if batch.input_file.encode() in key]


@pytest.mark.parametrize("file_id", ["../etc", "", "a b", "file-none", "é"])
async def test_an_id_from_outside_finds_nothing(books: Books, file_id: str) -> None:
    """Whatever it is."""
    with pytest.raises(UnknownFile):
        await books.files.get(file_id)


async def test_a_batch_of_no_lease_finishes_nothing(books: Books) -> None:
    """An empty token is nobody's."""
    batch = await books.batch()
    assert not await books.batches.finish(Lease(batch.id, ""), BatchStatus.FAILED)


async def test_a_removal_that_was_cut_off_is_due(books: Books) -> None:
    """From its first step on nobody finds the file, no batch is made of it, and it is due at once."""
    file = await books.file()
    for _ in range(2):
        await books.files.begin_removal(file.id)
    with pytest.raises(UnknownFile):
        await books.files.get(file.id)
    with pytest.raises(UnknownFile):
        await books.batch(input_file=file.id)
    assert [file.id] == await books.files.due(10)
    await books.files.end_removal(file.id)
    assert [] == await books.files.due(10)


async def remove(books: Books, file_id: str) -> None:
    await books.files.begin_removal(file_id)
    await books.files.end_removal(file_id)
