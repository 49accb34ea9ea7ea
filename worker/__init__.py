"""What owns a device: the engine, its adapters, and the loops that tie them to the queue."""

from lorapool.shared import __version__

__all__ = ["__version__"]
