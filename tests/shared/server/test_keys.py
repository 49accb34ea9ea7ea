from __future__ import annotations

import time

import pytest

from lorapool.shared.errors import InvalidRequest
from lorapool.shared.job import check_name
from lorapool.shared.server.keys import (
    Keys,
    PoolKeys,
    bare_id,
    check_job_id,
    issued_ms,
    new_job_id,
    partition_of,
    split_id,
)


def test_a_job_is_found_by_hand() -> None:
    """The key of a job is the one the README tells, with the bare id, whichever form of the id is given."""
    keys = Keys("default")
    assert keys.job("abc") == "lp:{default/0}:job:abc"
    assert keys.job("0.abc") == "lp:{default/0}:job:abc"


def test_all_keys_of_a_partition_share_its_tag() -> None:
    """Every key of a partition has the partition's hash tag, and only that one."""
    keys = Keys("default", 3)
    named = [keys.adapter("a@1"), keys.stream("a@1"), keys.stream("a@1", "high"), keys.payload("j"), keys.tokens("j")]
    named += [keys.window("a@1"), keys.stats("a@1"), keys.agent("x"), keys.inbox("c"), keys.ctl("w"), keys.claim("w")]
    named += [keys.wake(), keys.wake("w"), keys.one("ready")]
    assert {"default/3"} == {key[key.index("{") + 1 : key.index("}")] for key in named}
    assert len(named) == len(set(named))


def test_no_pool_can_have_a_partition_of_another_pools_keys() -> None:
    """A partition's tag holds a slash, which no name may: pool `acme.0` and partition 0 of pool `acme` never meet."""
    assert Keys("acme").prefix != PoolKeys("acme.0").prefix
    with pytest.raises(InvalidRequest, match="pool"):
        check_name("pool", "acme/0")


def test_the_catalog_is_found_by_hand() -> None:
    """A pool's own keys have the pool for their tag, whatever its partitions."""
    assert "lp:{default}:config" == PoolKeys("default").config
    assert "lp:{default}:adapter:cfo@1" == PoolKeys("default").adapter("cfo@1")


@pytest.mark.parametrize("bad", ["", "-a", "a b", "a:b", "a{b}", "a\n", "é", "x" * 129, "0.abc", "12.abc"])
def test_hostile_job_ids_are_refused(bad: str) -> None:
    """A job id becomes part of key names, and must not look like a full id."""
    with pytest.raises(InvalidRequest, match="job id"):
        check_job_id(bad)


def test_full_and_bare_ids() -> None:
    assert split_id("12.abc") == (12, "abc")
    assert split_id("abc") == (None, "abc")
    assert split_id("v1.2") == (None, "v1.2")
    assert bare_id("12.abc") == "abc"
    assert Keys("default", 12).full_id("abc") == "12.abc"


def test_a_fresh_id_tells_its_time() -> None:
    """An id we made says when, so that an expired result can be told from an unknown job; others say nothing."""
    made = new_job_id()
    assert abs((issued_ms(f"0.{made}") or 0) - time.time() * 1000) < 5_000
    assert issued_ms("my-own-id") is None
    assert check_job_id(made) == made
    assert made != new_job_id()


def test_partitions_follow_the_adapter_id() -> None:
    """All versions of an adapter live together; base-model jobs spread by job id."""
    assert partition_of("cfo@1", "a", 64) == partition_of("cfo@2", "b", 64)
    assert {partition_of("_base", f"0.job{i}", 4) for i in range(50)} == {0, 1, 2, 3}
    assert partition_of("_base", "0.job1", 4) == partition_of("_base", "job1", 4)
    assert partition_of("cfo@1", "a", 1) == 0
