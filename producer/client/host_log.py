"""The log of the program that holds a client: written to only where that program configured structlog.

Otherwise it would find lines on its standard output that it did not write.
"""

from __future__ import annotations


def warn(event: str, **fields: object) -> None:
    """A warning, or nothing."""
    import structlog  # here, because importing the client must stay quick

    if structlog.is_configured():
        structlog.get_logger("lorapool").warning(event, **fields)
