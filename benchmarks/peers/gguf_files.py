"""What llama.cpp reads: the base model's GGUF with its weights dequantized, and adapters of PEFT's as GGUF.

Runs inside a peer's venv that has ``gguf``, ``numpy`` and ``safetensors``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
ROTATED = ("attn_q", "attn_k")
OF_THE_FORMAT = ("general.architecture", "general.file_type", "general.quantization_version")


def dequantized(source: Path, out: Path, dtype: str) -> Path:
    """``out``: the model of ``source`` with every matrix in ``dtype`` (float32 or bfloat16), vectors in float32."""
    import gguf
    import numpy as np
    from gguf.quants import dequantize, quantize

    kind = {"float32": gguf.GGMLQuantizationType.F32, "bfloat16": gguf.GGMLQuantizationType.BF16}[dtype]
    file_type = {"float32": gguf.LlamaFileType.ALL_F32, "bfloat16": gguf.LlamaFileType.MOSTLY_BF16}[dtype]
    reader, writer = gguf.GGUFReader(source), gguf.GGUFWriter(out, "llama")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in OF_THE_FORMAT:
            _copy(writer, field)
    writer.add_file_type(file_type)
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if values.ndim == 1 or dtype == "float32":
            writer.add_tensor(tensor.name, values)
        else:
            writer.add_tensor(tensor.name, quantize(values, kind), raw_dtype=kind)
    return _written(writer, out)


def adapter(folder: Path, out: Path, heads: dict[str, int]) -> Path:
    """``out``: the adapter in ``folder``. ``heads``: how many rows of heads ``attn_q`` and ``attn_k`` have."""
    import gguf
    import numpy as np
    from safetensors.numpy import load_file

    writer = gguf.GGUFWriter(out, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    config = json.loads((folder / "adapter_config.json").read_text())
    writer.add_float32("adapter.lora.alpha", float(config["lora_alpha"]))
    for key, matrix in load_file(folder / "adapter_model.safetensors").items():
        layer, rest = key.split("model.layers.")[1].split(".", 1)
        module, letter = rest.removesuffix(".weight").rsplit(".lora_", 1)
        name = NAMES[module]
        rotated = letter == "B" and name in ROTATED
        rows = _interleaved(matrix, heads[name]) if rotated else matrix
        tensor = np.ascontiguousarray(rows.astype(np.float32))
        writer.add_tensor(f"blk.{layer}.{name}.weight.lora_{letter.lower()}", tensor)
    return _written(writer, out)


def _interleaved(rows: Any, heads: int) -> Any:
    """The rows of a rotated projection in the order in which llama.cpp keeps them: a head's two halves, row by row."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def _copy(writer: Any, field: Any) -> None:
    import gguf

    is_list = field.types[0] == gguf.GGUFValueType.ARRAY
    writer.add_key_value(field.name, field.contents(), field.types[0], field.types[-1] if is_list else None)


def _written(writer: Any, out: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out
