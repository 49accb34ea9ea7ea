"""What a gateway is told: where it listens, and its bounds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """``files``: the fsspec location of files and batches; ``batch_lease_s``: so long after a gateway's last sign of
    life another feeds its batches. Times in seconds, sizes in bytes.

    ``default_max_tokens``: of an answer whose request names no number; the context bounds it as well. ``away_s``: how
    long a request waits for a Redis server that is away. ``slow_s``: how long a client may take to send its headers, or
    to take what it is sent; a body must come at no less than 16 KiB/s after that.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    files: str = "~/.cache/lorapool/files"
    batch_lease_s: float = 15.0
    max_body_bytes: int = 8 << 20
    max_file_bytes: int = 200 << 20
    default_max_tokens: int = 2048
    max_connections: int = 8192
    cancel_on_disconnect: bool = True
    ping_s: float = 15.0
    away_s: float = 5.0
    slow_s: float = 30.0
    keep_alive_s: float = 75.0
    drain_s: float = 30.0
