"""Dramatiq with the eight threads of its own command line: fewer than the concurrency, and often faster for it."""

from __future__ import annotations

from benchmarks.queue_peers.contest import main
from benchmarks.queue_peers.dramatiq import Dramatiq

if __name__ == "__main__":
    main(Dramatiq(threads=8))
