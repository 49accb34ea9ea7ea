"""Bad input gets a clear error and loses nothing: every test ends with the worker answering."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorapool.producer.client.client import Client
from lorapool.shared.catalog.catalog import AdapterRecord, Catalog
from lorapool.shared.digest import adapter_digest
from lorapool.shared.errors import (
    AdapterNotReady,
    AdapterRefused,
    CheckpointError,
    InvalidRequest,
    JobFailed,
    UnknownAdapter,
)
from lorapool.shared.server.redis_client import connect
from lorapool.shared.server.settings import redis_settings
from tests.e2e.conftest import ADAPTERS, CONTEXT, RealPool
from tests.fleet import until
from tests.parts import catalog_of

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


@pytest.fixture(autouse=True)
async def still_serving(pool: Client) -> AsyncIterator[None]:
    """After the bad input, a good job is answered."""
    yield
    assert (await (await pool.submit("cfo", "Still there?", max_new_tokens=2)).result(30)).usage.completion_tokens == 2


def copy_of(name: str, folder: Path) -> Path:
    shutil.copytree(ADAPTERS / name, folder)
    return folder


def change_config(folder: Path, **fields: object) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | fields))


async def _decided(catalog: Catalog, ref: str) -> AdapterRecord | None:
    record = await catalog.get(ref)
    return None if record.status == "pending" else record


async def test_unknown_adapter(pool: Client) -> None:
    """An adapter that nobody registered is named, with the nearest that exists."""
    with pytest.raises(UnknownAdapter, match=r"cfoo.*cfo"):
        await pool.submit("cfoo", "Hello")


async def test_parameter_out_of_range(pool: Client) -> None:
    """A sampling param out of its range is named with its value."""
    with pytest.raises(InvalidRequest, match=r"top_p.*1\.5"):
        await pool.submit("cfo", "Hello", top_p=1.5)


async def test_prompt_longer_than_the_context(pool: Client) -> None:
    """A prompt that leaves no room for an answer fails at once, without retries, saying both lengths."""
    job = await pool.submit("cfo", "word " * 2 * CONTEXT, max_new_tokens=4)
    with pytest.raises(JobFailed, match=rf"{CONTEXT}") as failed:
        await job.result(30)
    assert (failed.value.error, failed.value.attempts) == ("PromptTooLong", 1)


async def test_checkpoint_missing(real_pool: RealPool, pool: Client) -> None:
    """A folder that is not there: told by the client, and by the worker if the client does not look,
    whose mount may lack it: no verdict."""
    folder = real_pool.adapter_root / "nowhere"
    with pytest.raises(CheckpointError, match="nowhere"):
        await pool.adapters.register("missing", folder)
    with pytest.raises(AdapterNotReady, match="no such folder"):
        await pool.adapters.register("missing", folder, digest="0" * 64)


async def test_checkpoint_is_a_pickle(real_pool: RealPool, pool: Client) -> None:
    """A pickle is never opened, by neither side."""
    folder = copy_of("cfo", real_pool.adapter_root / "pickled")
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="pickle"):
        await pool.adapters.register("pickled", folder)
    redis = connect(redis_settings(real_pool.url))
    catalog = catalog_of(redis, "default")
    await catalog.register(AdapterRecord(id="pickled", version="1.0.0", digest="0" * 64, uri=f"file://{folder}"))
    verdict = await until(lambda: _decided(catalog, "pickled@1.0.0"))
    await redis.aclose()
    assert verdict.status == "refused"
    assert "pickle" in verdict.reason


async def test_checkpoint_outside_the_allowed_folders(tmp_path: Path, pool: Client) -> None:
    """Files that the worker's operator did not allow are not read; another worker's might."""
    folder = copy_of("cfo", tmp_path / "elsewhere")
    with pytest.raises(AdapterNotReady, match="--adapter-root"):
        await pool.adapters.register("elsewhere", folder)


async def test_checkpoint_misshapen(real_pool: RealPool, pool: Client) -> None:
    """A factor that does not fit its module is named with both shapes."""
    folder = copy_of("cfo", real_pool.adapter_root / "misshapen")
    tensors = load_file(folder / WEIGHTS)
    name = next(name for name in tensors if name.endswith("lora_A.weight"))
    tensors[name] = torch.zeros(4, 100)
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(AdapterRefused, match="100"):
        await pool.adapters.register("misshapen", folder)


async def test_checkpoint_for_another_base_model(real_pool: RealPool, pool: Client) -> None:
    """An adapter made for another base model is refused, naming both."""
    folder = copy_of("cfo", real_pool.adapter_root / "foreign")
    change_config(folder, base_model_name_or_path="meta-llama/Llama-3.2-1B")
    with pytest.raises(AdapterRefused, match=r"Llama-3\.2-1B.*smollm2"):
        await pool.adapters.register("foreign", folder)


async def _verdict(real_pool: RealPool, name: str, uri: str, digest: str = "0" * 64) -> str:
    """What the worker says of an adapter that a client registered without looking at it: the reason to refuse."""
    redis = connect(redis_settings(real_pool.url))
    catalog = catalog_of(redis, "default")
    await catalog.register(AdapterRecord(id=name, version="1.0.0", digest=digest, uri=uri))
    verdict = await until(lambda: _decided(catalog, f"{name}@1.0.0"))
    await redis.aclose()
    assert verdict.status == "refused"
    return verdict.reason


async def _unreached(real_pool: RealPool, name: str, uri: str) -> str:
    """Why the worker does not reach such an adapter, which stays pending."""
    redis = connect(redis_settings(real_pool.url))
    catalog = catalog_of(redis, "default")
    await catalog.register(AdapterRecord(id=name, version="1.0.0", digest="0" * 64, uri=uri))

    async def noted() -> AdapterRecord | None:
        record = await catalog.get(f"{name}@1.0.0")
        return record if record.not_here else None

    record = await until(noted)
    await redis.aclose()
    assert record.status == "pending"
    return next(iter(record.not_here.values()))


async def test_uri_that_climbs_out(real_pool: RealPool) -> None:
    """Dots in a uri do not leave the allowed folders, encoded or not."""
    for number, dots in enumerate(("..", "%2e%2e", "..%2f..")):
        uri = f"file://{real_pool.adapter_root}/{dots}/{dots}/etc"
        assert "outside the folders" in await _unreached(real_pool, f"climber{number}", uri)


async def test_symlinks_that_lead_out(real_pool: RealPool, tmp_path: Path) -> None:
    """A link as the folder, and a link as the weights: both are followed before the folder is judged."""
    outside = copy_of("cfo", tmp_path / "outside")
    (real_pool.adapter_root / "linked").symlink_to(outside)
    folder = copy_of("cfo", real_pool.adapter_root / "half-linked")
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to(outside / WEIGHTS)
    for name in ("linked", "half-linked"):
        assert "outside the folders" in await _unreached(real_pool, name, f"file://{real_pool.adapter_root}/{name}")


def _huge_header(path: Path) -> None:
    path.write_bytes((1 << 62).to_bytes(8, "little") + path.read_bytes()[8:])


def _nan(path: Path) -> None:
    tensors = load_file(path)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, path)


def _extra_key(path: Path) -> None:
    save_file({**load_file(path), "base_model.model.model.norm.weight": torch.zeros(576)}, path)


def _holes(path: Path) -> None:
    with path.open("r+b") as weights:
        weights.truncate(1 << 42)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [(_huge_header, "header of"), (_nan, "NaN"), (_extra_key, "model.norm"), (_holes, "the limit is")],
)
async def test_weights_made_to_harm(real_pool: RealPool, spoil: Callable[[Path], None], told: str) -> None:
    """A header that claims 4 EiB, a NaN, a tensor that is no LoRA's, terabytes of holes: each is refused by name."""
    folder = copy_of("cfo", real_pool.adapter_root / spoil.__name__)
    spoil(folder / WEIGHTS)
    digest = "0" * 64 if spoil is _holes else adapter_digest(folder)  # nobody hashes four terabytes
    assert told in await _verdict(real_pool, spoil.__name__.strip("_"), f"file://{folder}", digest)


async def test_chat_templates_made_to_harm(real_pool: RealPool, pool: Client) -> None:
    """An adapter whose template never ends is refused; one that turns on its first user fails that job, with words."""
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    folder = copy_of("cfo", real_pool.adapter_root / "endless")
    (folder / "chat_template.jinja").write_text(endless)
    with pytest.raises(AdapterRefused, match=r"ended its judge 2 times.*took too long, at its chat template"):
        await pool.adapters.register("endless", folder)
    folder = copy_of("cfo", real_pool.adapter_root / "turncoat")
    bomb = "{% if 'please' in messages[0].content %}{{ 'x' * 10 ** 10 }}{% endif %}{{ messages[0].content }}"
    (folder / "chat_template.jinja").write_text(bomb)
    await pool.adapters.register("turncoat", folder)
    job = await pool.submit("turncoat", messages=[{"role": "user", "content": "Answer, please."}], max_new_tokens=2)
    with pytest.raises(JobFailed, match="chat template"):
        await job.result(60)


async def test_config_made_to_harm(real_pool: RealPool) -> None:
    """An expression that only backtracking can match, a lone surrogate, and JSON nested 100,000 deep."""
    hostile = {"redos": '{"rank_pattern": {"(?=a)b": 4}}', "surrogate": '{"rank_pattern": {"\\ud800": "x"}}'}
    for name, config in (*hostile.items(), ("nested", "[" * 100_000)):
        folder = copy_of("cfo", real_pool.adapter_root / name)
        (folder / CONFIG).write_text(config)
        reason = await _verdict(real_pool, name, f"file://{folder}")
        assert "is not served from" in reason or "rank_pattern" in reason or "not JSON" in reason


async def test_checkpoint_without_effect(real_pool: RealPool, pool: Client) -> None:
    """An untrained adapter would answer exactly as the base model: refused."""
    folder = copy_of("cfo", real_pool.adapter_root / "untrained")
    tensors = {name: t.zero_() if ".lora_B." in name else t for name, t in load_file(folder / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(AdapterRefused, match="applies nothing"):
        await pool.adapters.register("untrained", folder)


async def test_files_changed_after_registration(real_pool: RealPool, pool: Client) -> None:
    """Weights that are no longer those that were validated are not served: the job fails, naming the digest."""
    folder = copy_of("cfo", real_pool.adapter_root / "changed")
    change_config(folder, lora_alpha=9)
    await pool.adapters.register("changed", folder)
    change_config(folder, lora_alpha=10)
    job = await pool.submit("changed", "Hello", max_new_tokens=2)
    with pytest.raises(JobFailed, match="digest") as failed:
        await job.result(30)
    assert (failed.value.error, failed.value.attempts) == ("CheckpointError", 1)
