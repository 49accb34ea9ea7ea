"""The book of batches on a real server: one holder at a time, each line noted once, replies that were lost."""

from __future__ import annotations

import asyncio

import pytest

from lorapool.shared.batches import batch_book
from lorapool.shared.batches.batch_book import Lease, Written
from lorapool.shared.batches.batch_record import BatchStatus
from lorapool.shared.errors import InvalidRequest, QueueFull, UnknownBatch, UnknownFile
from lorapool.shared.server.terms import POOL_TTL_MS
from tests.shared.batches.conftest import CLOCK, LEASE_MS, NOW, Books, part

OUTPUT = Written("output_file", "file-out", "batches/b/out", "out.jsonl", 9, "cd")


async def test_a_batch_comes_back_as_it_went(books: Books) -> None:
    """With who made it, and by when it has to end."""
    fields = {"key": "k1", "adapters": ("cfo*",), "metadata": {"a": "é"}, "operator": True}
    batch = await books.batch(**fields)
    assert fields == batch.model_dump(include=set(fields))
    assert (NOW, NOW + 60_000, BatchStatus.VALIDATING) == (batch.created_ms, batch.expires_ms, batch.status)
    assert batch == await books.batches.get(batch.id) == await books.batches.add(batch)


async def test_a_batch_needs_a_file_of_its_purpose(books: Books) -> None:
    """One that is there, whole."""
    with pytest.raises(UnknownFile):
        await books.batch(input_file="file-none")
    with pytest.raises(UnknownFile):
        await books.batch(input_file=(await books.file(whole=False)).id)
    with pytest.raises(InvalidRequest, match="purpose"):
        await books.batch(input_file=(await books.file(purpose="vision")).id)


async def test_an_agent_has_a_bounded_number_of_open_batches(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others' do not count."""
    monkeypatch.setattr(batch_book, "MAX_OPEN", 1)
    await books.batch()
    with pytest.raises(QueueFull, match="1 batches"):
        await books.batch()
    await books.batch("eve")


async def test_one_holder_at_a_time(books: Books) -> None:
    """However many ask, one gets it; another only once the lease has run out, and the first has lost it then."""
    batch = await books.batch()
    leases = await asyncio.gather(*(books.batches.take(f"g{n}", LEASE_MS) for n in range(20)))
    [lease] = filter(None, leases)
    await books.set_clock(NOW + LEASE_MS - 1)
    assert await books.batches.take("late", LEASE_MS) is None
    await books.set_clock(NOW + LEASE_MS)
    later = await books.taken("late")
    assert (batch.id, batch.id) == (lease.batch_id, later.batch_id)
    assert await books.batches.renew(lease, LEASE_MS) is None
    assert (BatchStatus.VALIDATING, NOW + LEASE_MS) == await books.batches.renew(later, LEASE_MS)


async def test_a_lease_that_nobody_took_can_be_renewed(books: Books) -> None:
    """After an outage its holder goes on."""
    await books.batch()
    lease = await books.taken()
    await books.set_clock(NOW + 10 * LEASE_MS)
    assert await books.batches.renew(lease, LEASE_MS) is not None
    assert await books.batches.take("other", LEASE_MS) is None


async def test_who_lost_the_lease_writes_nothing(books: Books) -> None:
    """Neither a step, a part, an end nor a release; all is as its new holder left it."""
    await books.batch()
    stale = await books.taken()
    await books.set_clock(NOW + LEASE_MS)
    await books.taken("other")
    before = await everything(books)
    assert await books.batches.move(stale, BatchStatus.IN_PROGRESS, total=3) is None
    assert not await books.batches.commit(stale, 0, part(0))
    assert not await books.batches.finish(stale, BatchStatus.COMPLETED, [OUTPUT])
    await books.batches.release(stale)
    await books.batches.close(stale)
    assert before == await everything(books)


async def test_each_line_is_noted_once(books: Books) -> None:
    """The same part again changes nothing; one with a line that is noted already, or out of turn, is refused whole."""
    batch = await books.batch()
    lease = await books.taken()
    await books.batches.move(lease, BatchStatus.IN_PROGRESS, total=9)
    for _ in range(3):
        assert await books.batches.commit(lease, 0, part(0, 7, failed=1, completed=1, prompt_tokens=5))
    assert not await books.batches.commit(lease, 1, part(3, 7, name="q"))
    assert not await books.batches.commit(lease, 0, part(3, name="q"))
    assert not await books.batches.commit(lease, 2, part(3, name="q"))
    assert await books.batches.commit(lease, 1, part(3, name="q", completion_tokens=2))
    found = await books.batches.get(batch.id)
    assert (2, 1, 5, 2, 9) == (
        found.completed,
        found.failed,
        found.prompt_tokens,
        found.completion_tokens,
        found.total,
    )
    assert (["p", "q"], bytes([0b10010001])) == (
        await books.batches.parts(batch.id),
        await books.batches.answered(batch.id),
    )


async def test_an_end_makes_files_and_then_leaves_nothing(books: Books) -> None:
    """The batch names them, its agent finds them; closed, it is no more to be taken, and forgotten in time."""
    batch = await books.batch()
    lease = await books.taken()
    await books.batches.move(lease, BatchStatus.IN_PROGRESS, total=1)
    await books.batches.commit(lease, 0, part(0))
    assert BatchStatus.FINALIZING == await books.batches.move(lease, BatchStatus.FINALIZING)
    for _ in range(2):
        assert await books.batches.finish(lease, BatchStatus.COMPLETED, [OUTPUT])
    found = await books.batches.get(batch.id)
    assert (BatchStatus.COMPLETED, NOW, "file-out") == (found.status, found.completed_ms, found.output_file)
    assert "batches/b/out" == (await books.files.get("file-out")).name
    await books.batches.close(lease)
    await books.batches.close(lease)
    await books.set_clock(NOW + 2 * LEASE_MS)
    assert await books.batches.take("g2", LEASE_MS) is None
    assert 0 < await books.redis.pttl(f"lp:{{test}}:batch:{batch.id}") <= POOL_TTL_MS["batch"]
    assert not await books.redis.keys("lp:{test}:batch_[pa]*")


async def test_an_end_is_taken_up_again_to_clear_away(books: Books) -> None:
    """Whose holder died between the end and the clearing is taken by another, with its status."""
    await books.batch()
    await books.batches.finish(await books.taken(), BatchStatus.FAILED, errors=[{"line": 1}])
    await books.set_clock(NOW + LEASE_MS)
    lease = await books.taken("g2")
    found = await books.batches.get(lease.batch_id)
    assert (BatchStatus.FAILED, ({"line": 1},), "g2") == (found.status, found.errors, found.holder)


async def test_a_cancelled_batch_goes_no_other_way(books: Books) -> None:
    """It stays ``cancelling`` through its steps; one that ends already is not cancelled any more."""
    batch = await books.batch()
    lease = await books.taken()
    assert BatchStatus.CANCELLING == await books.batches.cancel(batch.id)
    assert BatchStatus.CANCELLING == await books.batches.move(lease, BatchStatus.IN_PROGRESS, total=4)
    assert BatchStatus.CANCELLING == await books.batches.move(lease, BatchStatus.FINALIZING)
    await books.batches.finish(lease, BatchStatus.CANCELLED)
    assert BatchStatus.CANCELLED == await books.batches.cancel(batch.id)
    assert 4 == (await books.batches.get(batch.id)).total
    with pytest.raises(UnknownBatch):
        await books.batches.cancel("batch_none")


async def test_one_agents_flood_leaves_feeders_for_others(books: Books) -> None:
    """Four batches of an agent are held at a time, though its fifth is older than another's first."""
    ours = []
    for number in range(5):
        await books.set_clock(NOW + number)
        ours.append(await books.batch())
    theirs = await books.batch("eve")
    taken = [await books.batches.take("g", LEASE_MS) for _ in range(6)]
    assert [*(batch.id for batch in ours[:4]), theirs.id, None] == [lease and lease.batch_id for lease in taken]


async def test_a_batch_given_back_rests(books: Books) -> None:
    """For as long as its holder said, and it says why."""
    batch = await books.batch()
    await books.batches.release(await books.taken(), pause_ms=5_000, trouble="no such bucket")
    assert ("no such bucket", "") == ((found := await books.batches.get(batch.id)).trouble, found.holder)
    assert await books.batches.take("g2", LEASE_MS) is None
    await books.set_clock(NOW + 5_000)
    await books.taken("g2")


async def test_feeders_are_counted_while_they_beat(books: Books) -> None:
    """Also one that holds enough and takes no more; it then gets none."""
    await books.redis.delete(CLOCK)  # feeders() asks the server's own
    await books.batch()
    assert 0 == await books.batches.feeders()
    assert await books.batches.take("g1", LEASE_MS, idle=False) is None
    await books.batches.take("g2", LEASE_MS)
    assert 2 == await books.batches.feeders()


async def test_damage_harms_no_other(books: Books) -> None:
    """A record of nonsense is left out of lists and of what is to be fed."""
    batch = await books.batch()
    await books.redis.zadd("lp:{test}:batches_open", {"batch_gone": 1})
    await books.redis.hset("lp:{test}:batch:batch_odd", mapping={"status": "x"})
    await books.redis.zadd("lp:{test}:batches", {"batch_odd": 1})
    assert ([batch], False) == await books.batches.page()
    assert Lease(batch.id, (await books.taken()).token).batch_id == batch.id


async def everything(books: Books) -> dict[bytes, object]:
    found: dict[bytes, object] = {}
    for key in await books.redis.keys("*batch*"):
        kind = await books.redis.type(key)
        found[key] = await (books.redis.hgetall(key) if kind == b"hash" else books.redis.dump(key))
    return found
