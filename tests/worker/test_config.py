"""What a worker can be told, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from lorapool.shared.errors import InvalidRequest
from lorapool.worker.config import WorkerConfig, parse_bytes


def config(tmp_path: Path, **fields: object) -> WorkerConfig:
    return WorkerConfig.parse(worker_id="w1", base_model=str(tmp_path), **fields)


def test_frozen(tmp_path: Path) -> None:
    """A configuration cannot be changed after it was read."""
    with pytest.raises(ValidationError, match="frozen"):
        config(tmp_path).slots = 3  # type: ignore[misc]


def test_unknown_key(tmp_path: Path) -> None:
    """A misspelt key is refused by name."""
    with pytest.raises(InvalidRequest, match=r"slotz = 3"):
        config(tmp_path, slotz=3)


@pytest.mark.parametrize(
    ("field", "value"),
    [("device", "tpu"), ("dtype", "int8"), ("slots", 0), ("lease_s", 0.1), ("pool", "a b"), ("claim_policy", "fifo")],
)
def test_bad_value(tmp_path: Path, field: str, value: object) -> None:
    """A value out of its range is refused, naming field and value."""
    with pytest.raises(InvalidRequest, match=rf"{field} = {value!r}"):
        config(tmp_path, **{field: value})


@pytest.mark.parametrize(
    ("expected", "text"),
    [(1048576, "1048576"), (2 * 2**30, "2GiB"), (500_000_000, "500MB"), (1_500, "1.5k"), (2**20, "1 MiB")],
)
def test_sizes(expected: int, text: str) -> None:
    """Sizes are read with decimal and binary units."""
    assert expected == parse_bytes(text)


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1e9", "two"])
def test_bad_size(text: str) -> None:
    """Anything else is refused, naming the text."""
    with pytest.raises(InvalidRequest, match="not understood"):
        parse_bytes(text)
