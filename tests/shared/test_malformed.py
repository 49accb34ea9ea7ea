from __future__ import annotations

import pytest

from lorapool.shared import malformed
from lorapool.shared.errors import MalformedEntry
from lorapool.shared.queue import replies
from lorapool.shared.server.keys import Keys

KEYS = Keys("default")


def test_what_cannot_be_read_is_stepped_over_and_counted() -> None:
    """The readable ones come, in order; each of the others counts."""
    before = malformed.total()
    assert [1, 2] == malformed.readable("number", [b"1", b"x", b"2", b"\xff"], int)
    assert 2 == malformed.total() - before


def test_the_one_thing_asked_for_is_a_typed_error() -> None:
    """Whoever asked for exactly that hears what is wrong with it."""
    with pytest.raises(MalformedEntry, match="the answer cannot be read"):
        malformed.required("the answer", lambda: int("many"))


@pytest.mark.parametrize("text", [b"", b"nan", b"inf", b"1e400", None, object(), "९e999"])
def test_a_number_that_is_none_is_the_default(text: object) -> None:
    """Nothing that a hash may hold becomes a number that is none."""
    assert 7.0 == malformed.number(text, 7.0)


def test_a_damaged_claim_is_told_apart() -> None:
    """Of three claimed jobs the middle one's head is damaged: two are handed out, its lease is known."""
    sound = b"%s foreign@1 - raw 1 0 1 5 1 2 -"
    answer = [b"1 - 0 0 0 0", sound % b"a", b"", b"b foreign@1 - an agent 1 0 1 5 1 2 -", b"", sound % b"c", b""]
    claim = replies.claim(answer, "lease", KEYS)
    assert ["0.a", "0.c"] == [job.job_id for job in claim.jobs]
    assert [("0.b", "lease")] == list(claim.unreadable)


def test_a_notice_that_cannot_be_read_is_still_a_hint() -> None:
    """One for each field, so that the reader gets past the entry."""
    found = list(replies.notices("1-0", {"a": b"\xff", "b": b"succeeded", "c": b"succeeded\tx"}, KEYS))
    assert [("0.a", None), ("0.b", "succeeded"), ("0.c", None)] == [(notice.job_id, notice.state) for notice in found]
