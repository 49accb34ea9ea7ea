"""The log of the program that holds a client: written to only where that program configured structlog.

Otherwise lines that it did not write would appear on its standard output.
"""

from __future__ import annotations


def warn(event: str, **fields: object) -> None:
    """A warning, or nothing."""
    import structlog  # here, because importing the client must stay quick

    if structlog.is_configured():
        structlog.get_logger("lorapool").warning(event, **fields)
