"""The S3 protocol, against moto's server on this machine: reading, writing, and what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from lorapool.producer import Client
from lorapool.shared.digest import CONFIG_NAME, WEIGHTS_NAME, adapter_digest
from lorapool.shared.errors import CheckpointError
from lorapool.shared.remote import RemoteFolder
from lorapool.worker.adapters.cache_folder import CacheFolder
from lorapool.worker.adapters.files import AdapterFiles
from lorapool.worker.engine.adapter_source import AdapterSource
from tests.s3 import running_s3

CFO = Path(__file__).parents[2] / "examples" / "adapters" / "cfo"
URI = "s3://models/adapters/cfo"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3 with one bucket; the environment leads to it, as it does to a real one."""
    with running_s3("models"):
        yield URI


async def test_an_adapter_goes_to_s3_and_comes_back(s3: str, tmp_path: Path, redis_url: str) -> None:
    """Uploaded, told by a client that has no digest, fetched by a worker: the same content at every step."""
    folder = RemoteFolder(s3)
    for name in (WEIGHTS_NAME, CONFIG_NAME):
        folder.upload(CFO / name, name)
    async with Client(redis_url) as pool:
        record = await pool.adapters.register("cfo", s3, wait=False)
    assert (adapter_digest(CFO), 4, s3) == (record.digest, record.rank, record.uri)
    files = AdapterFiles((), ("s3://models/adapters",), CacheFolder(tmp_path / "cache"), 1 << 20)
    with files.reading(AdapterSource(record.ref, record.digest, record.uri)) as fetched:
        assert record.digest == adapter_digest(fetched)


@pytest.mark.parametrize(
    ("uri", "said"),
    [("s3://models/adapters/nobody", "has no adapter_config.json"), ("s3://no-such-bucket/cfo", "no-such-bucket")],
)
def test_what_is_not_there_is_named(s3: str, uri: str, said: str) -> None:
    """Without the credentials that were tried."""
    with pytest.raises(CheckpointError, match=said) as caught:
        RemoteFolder(uri).read(CONFIG_NAME, 1000)
    assert "s3cr3t" not in str(caught.value)


def test_nothing_makes_a_bucket(s3: str) -> None:
    """A slip in the name of one is an error."""
    with pytest.raises(CheckpointError, match="modells"):
        RemoteFolder("s3://modells/cfo").upload(CFO / CONFIG_NAME, CONFIG_NAME)
    assert ["models"] == [bucket["Name"] for bucket in boto3.client("s3").list_buckets()["Buckets"]]
