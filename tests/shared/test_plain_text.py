"""What strangers wrote is made fit where it enters Redis, whatever it is."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st
from redis.asyncio import Redis

from lorapool.shared.catalog.adapter_record import AdapterRecord, encoded, told_by
from lorapool.shared.plain_text import encodable, plain_text, plain_values
from tests.parts import catalog_of

HOSTILE = "a\ud800b\0c\x1b[31m\x9b\x7fd"


@given(st.text(st.characters()))
@example(HOSTILE)
def test_no_text_is_left_that_cannot_be_sent_or_confuses_a_terminal(text):
    """Every text has UTF-8 and no control characters but tab and new line; a plain one stays as it is."""
    fit = plain_text(text, 50)
    fit.encode()
    assert len(fit) <= 50
    assert all(character.isprintable() or character in "\t\n" or ord(character) > 159 for character in fit)
    encodable(text).encode()


def test_plain_text_stays():
    """Line ends, accents and signs are no harm."""
    assert "café\n\t日本 🙂" == plain_text("café\n\t日本 🙂") == encodable("café\n\t日本 🙂")


def test_values_within_are_made_fit_too():
    """JSON would carry a lone surrogate, escaped, to whoever shows it."""
    assert {"a\ufffdb": ["\ufffd", 1, None]} == plain_values({"a\ud800b": ("\ud800", 1, None)})


def test_what_a_config_tells_is_bounded_and_fit():
    """A config of a mebibyte makes no record of that size."""
    told = told_by(
        {"base_model_name_or_path": "x" * 10**6, "target_modules": [HOSTILE] * 10**4, "r": 10**40, "revision": HOSTILE}
    )
    assert len(json.dumps(told)) < 100_000
    "".join(encoded(told).values()).encode()
    assert "rank" not in told


async def test_a_reason_with_a_lone_surrogate_is_recorded(redis: Redis) -> None:
    """Once it ended every worker that tried, and each one that was restarted."""
    catalog = catalog_of(redis, "test")
    await catalog.register(AdapterRecord(id="vile", version="1", digest="d" * 64, uri="file:///vile\ud800"))
    found = await catalog.decide("vile@1", "refused", f"no: {HOSTILE}" + "x" * 10**5, {"base_model": HOSTILE})
    assert ("refused", "no: a\ufffdb\ufffdc") == (found.status, found.reason[:9])
    assert len(found.reason) <= 2000
    await catalog.verified("vile@1", "t", "w", HOSTILE)
