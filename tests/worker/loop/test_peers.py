"""Who else takes jobs is read when it changed, and not by everybody at once."""

from __future__ import annotations

from collections.abc import Sequence

from lorapool.worker.loop.peers import BEATS_BETWEEN, Peers


async def test_names_are_read_when_the_mark_changed_and_not_more_often_than_is_worth_it() -> None:
    """At the first beat, then after some beats and only if others came or went; what was passed over is made up for."""
    now, looks = [0.0], [0]
    told: list[tuple[str, ...]] = []

    async def look() -> Sequence[str]:
        looks[0] += 1
        return (f"w{looks[0]}",)

    peers = Peers(look, lambda names: told.append(tuple(names)), every_s=2.0, clock=lambda: now[0])
    for _ in range(1000):
        await peers.heed("same")
        now[0] += 2.0
    assert (1, ("w1",)) == (looks[0], told[-1])
    for beat in range(1000):
        await peers.heed(f"mark {beat}")
        now[0] += 2.0
    assert 1000 / BEATS_BETWEEN[1] - 2 < looks[0] < 1000 / BEATS_BETWEEN[0] + 2
    before = looks[0]
    for _ in range(10):
        await peers.heed("mark 999")
        now[0] += 2.0
    assert looks[0] - before <= 1
