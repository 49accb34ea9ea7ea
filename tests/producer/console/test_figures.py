"""Figures: what a reader sees of a number, a time, a text."""

from __future__ import annotations

import pytest

from lorapool.producer.console import figures


@pytest.mark.parametrize(
    ("shown", "value"),
    [("0", 0), ("7", 7), ("12,345", 12_345), ("0.5", 0.5), ("1,235", 1234.6), ("–", None)],
)
def test_counts(shown, value):
    """Whole where they are, or large."""
    assert shown == figures.count(value)


@pytest.mark.parametrize(
    ("shown", "value"),
    [("950", 950), ("9,999", 9_999), ("12.3 k", 12_345), ("4.1 M", 4.1e6), ("2.0 G", 2e9), ("–", None)],
)
def test_short_counts(shown, value):
    """From ten thousand on in thousands."""
    assert shown == figures.short(value)


@pytest.mark.parametrize(
    ("shown", "ms"),
    [
        ("850 ms", 850),
        ("2.4 s", 2400),
        ("119.0 s", 119_000),
        ("3 min", 180_000),
        ("5 h", 18_000_000),
        ("2 d", 172_800_000),
    ],
)
def test_spans(shown, ms):
    """With the unit that leaves at least two of it."""
    assert shown == figures.span(ms)


def test_times_are_told_from_now():
    """Past, future, now, never."""
    assert ["3 min ago", "in 2.0 s", "now", "–"] == [
        figures.since(at, 1_000_000) for at in (820_000, 1_002_000, 999_500, 0)
    ]
    assert ("2027-01-15 08:00:00 UTC", "–") == (figures.moment(1_800_000_000_000), figures.moment(1e20))


def test_dollars_align():
    """Small sums have four places."""
    assert ["$12.34", "$0.0380", "< $0.0001", "$0.00", "–"] == [
        figures.dollars(usd) for usd in (12.341, 0.038, 0.00001, 0, None)
    ]


def test_text_of_others_steers_nothing():
    """Control characters and turns of the direction are replaced; lines stay."""
    assert "a\ufffdb\nc\ufffdd" == figures.clean("a\x1bb\r\nc\u202ed")
