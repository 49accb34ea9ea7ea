"""An S3 on this machine: moto's server, to which the environment leads as it does to a real one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import httpx
import pytest
import s3fs
from moto.server import ThreadedMotoServer


@contextmanager
def running_s3(bucket: str) -> Iterator[None]:
    """With that one bucket, whatever earlier ones of this process had."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    httpx.post(f"http://{host}:{port}/moto-api/reset").raise_for_status()  # a process has one state for all its servers
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "s3cr3t",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket=bucket)
        s3fs.S3FileSystem.clear_instance_cache()  # one that an earlier test made knows nothing of this environment
        yield
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()
