"""What a worker cannot reach, and for how long it lets it alone."""

from __future__ import annotations

from lorapool.worker.adapters.not_here import FIRST_S, LONGEST_S, MAX_NOTES, MAX_SHOWN, NotHere


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_it_is_let_alone_for_a_while_and_longer_each_time():
    """Half a minute, then a minute, up to ten; reaching it once begins anew."""
    clock = Clock()
    notes = NotHere(clock)
    for expected in (FIRST_S, 2 * FIRST_S, 4 * FIRST_S, 8 * FIRST_S, 16 * FIRST_S, LONGEST_S, LONGEST_S):
        assert notes.note("cfo@1", "no such folder")
        assert not notes.note("cfo@1", "no news")
        clock.now_s += expected - 1
        assert "cfo@1" in notes and notes
        clock.now_s += 1
        assert "cfo@1" not in notes and not notes
    notes.reached("cfo@1")
    notes.note("cfo@1", "again")
    clock.now_s += FIRST_S
    assert "cfo@1" not in notes


def test_who_is_left():
    """In their order."""
    notes = NotHere()
    notes.note("b@1", "no such folder")
    assert ("c@1", "a@1") == notes.without(["c@1", "b@1", "a@1"])
    assert ("b@1",) == notes.refs()


def test_it_remembers_and_shows_so_many():
    """Of thousands that a mount lacks, the latest."""
    notes = NotHere()
    for number in range(MAX_NOTES + 10):
        notes.note(f"a{number:05}@1", "no such folder")
    assert "a00009@1" not in notes and "a00010@1" in notes
    assert MAX_SHOWN == len(notes.refs())
    assert f"a{MAX_NOTES + 9:05}@1" == notes.refs()[-1]
