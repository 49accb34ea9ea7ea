"""What the gateway remembers of keys."""

from __future__ import annotations

from typing import Any

import pytest

from lorapool.producer.gateway.access import BELIEVED_S, MAX_WRONG, KnownKeys
from lorapool.shared.access.key_book import KeyBook
from lorapool.shared.errors import RedisUnreachable
from tests.producer.gateway.guarded import WRONG, Door


class CountingBook:
    """Stands in for a key book; counts what it is asked, and may be away."""

    def __init__(self, book: KeyBook) -> None:
        self._book = book
        self.asked, self.away = 0, False

    async def find(self, secret: str) -> Any:
        self.asked += 1
        if self.away:
            raise RedisUnreachable("away")
        return await self._book.find(secret)

    async def any(self) -> bool:
        if self.away:
            raise RedisUnreachable("away")
        return await self._book.any()


async def test_a_key_is_looked_up_once_a_second(door: Door) -> None:
    """Right and wrong ones; what cannot be a secret never."""
    now = 100.0
    secret, book = await door.client.keys.add("board-7"), CountingBook(door.client.keys)
    known = KnownKeys(book, lambda: now)
    for _ in range(50):
        assert "board-7" == (await known.find(secret)).name
        assert None is await known.find(WRONG)
        assert None is await known.find("sk-other")
    assert 2 == book.asked
    now += BELIEVED_S
    await known.find(secret)
    await known.find(WRONG)
    assert 4 == book.asked


async def test_guesses_fill_no_memory(door: Door) -> None:
    """However many wrong keys come, a bounded number is remembered, as hashes, and right ones stay."""
    secret, known = await door.client.keys.add("board-7"), KnownKeys(door.client.keys)
    await known.find(secret)
    for n in range(MAX_WRONG + 200):
        await known.find(f"lp-{n:043d}")
    assert (MAX_WRONG, 1) == (len(known._wrong._kept), len(known._good._kept))
    assert not [name for name in (*known._wrong._kept, *known._good._kept) if name.startswith("lp-")]


async def test_known_keys_stay_known_while_redis_is_away(door: Door) -> None:
    """Who was known goes on; who was not cannot be told, and gets the error of a server that is away."""
    now = 100.0
    secret, book = await door.client.keys.add("board-7"), CountingBook(door.client.keys)
    known = KnownKeys(book, lambda: now)
    await known.find(secret)
    assert await known.any()
    book.away, now = True, now + 60
    assert "board-7" == (await known.find(secret)).name
    assert await known.any()
    with pytest.raises(RedisUnreachable):
        await known.find(WRONG)
