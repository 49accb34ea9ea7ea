"""arq, looking for work every 10 ms instead of twice a second: what its design gives without that cap."""

from __future__ import annotations

from benchmarks.queue_peers.arq import Arq
from benchmarks.queue_peers.contest import main

if __name__ == "__main__":
    main(Arq(poll_delay_s=0.01))
