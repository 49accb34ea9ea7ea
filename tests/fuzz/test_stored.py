"""What stands in Redis, and what a caller sends: a third of the minute."""

from __future__ import annotations

from tests.fuzz.minute import unharmed


def test_replies_and_entries() -> None:
    """Whatever a script answers or a stream holds is read, stepped over, or a typed error."""
    unharmed(8, "replies", "entries")


def test_records_and_requests() -> None:
    """Whatever a hash or a payload holds, and whatever a caller says, likewise."""
    unharmed(10, "records", "payload", "detail", "request", "names", "uris")
