"""What a gateway is told: where it listens, and its bounds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """``files``: the fsspec location of files and batches. Times in seconds, sizes in bytes."""

    host: str = "127.0.0.1"
    port: int = 8080
    files: str = "~/.cache/lorapool/files"
    max_body_bytes: int = 8 << 20
    max_file_bytes: int = 200 << 20
    cancel_on_disconnect: bool = True
    ping_s: float = 15.0
    drain_s: float = 30.0
