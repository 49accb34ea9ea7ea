from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorapool.shared import codec
from lorapool.shared.errors import InvalidRequest, PayloadTooLarge, UnsupportedVersion
from lorapool.shared.job import Job, More, TokenLogprob
from lorapool.shared.tools import ToolCall, ToolCallDelta

WORDS = st.text(min_size=1, max_size=20)
PARAMS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 2),
        "top_k": st.integers(0, 100),
        "seed": st.integers(0, 2**63 - 1),
        "stop": st.lists(WORDS, max_size=3),
        "logprobs": st.booleans(),
    },
)
INPUTS = st.one_of(
    st.fixed_dictionaries({"prompt": st.text()}),
    st.fixed_dictionaries(
        {
            "messages": st.lists(
                st.fixed_dictionaries({"role": st.just("user"), "content": st.text()}), min_size=1, max_size=3
            )
        }
    ),
)


def job(**fields: Any) -> Job:
    return Job.parse(**{"id": "a1", "ref": "cfo@1", "prompt": "hi", **fields})


@given(INPUTS, PARAMS, st.sampled_from(("high", "normal", "low")), st.none() | st.integers(1, 10**9))
def test_what_goes_in_comes_out(
    inputs: dict[str, Any], params: dict[str, Any], priority: str, deadline: int | None
) -> None:
    """Decoding an encoded job gives the same job."""
    sent = Job.parse(id="a1", ref="cfo@1", params=params, priority=priority, deadline_ms=deadline, client="c", **inputs)
    assert sent == codec.decode_job(codec.encode_job(sent))


def test_unknown_fields_are_ignored() -> None:
    """A newer client of the same major version may say more than we understand."""
    fields = msgpack.unpackb(codec.encode_job(job(params={"top_k": 5})))
    fields["colour"] = "blue"
    fields["params"]["mood"] = 1
    assert codec.decode_job(msgpack.packb(fields)) == job(params={"top_k": 5})


@pytest.mark.parametrize("version", [3, None, "1"])
def test_a_newer_version_is_refused_as_such(version: object) -> None:
    fields = {**msgpack.unpackb(codec.encode_job(job())), "v": version}
    with pytest.raises(UnsupportedVersion, match="reads up to 2"):
        codec.decode_job(msgpack.packb(fields))


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"\xc1",
        b"\x93\x01\x02\x03",
        b"garbage",
        msgpack.packb({"v": 1}),
        msgpack.packb({"v": 1, "id": "../x", "ref": 5}),
    ],
)
def test_a_damaged_record_is_refused(stored: bytes) -> None:
    """What is not a job raises our error, whatever it is."""
    with pytest.raises(InvalidRequest, match="stored re"):
        codec.decode_job(stored)


def test_the_limit_counts_encoded_bytes() -> None:
    """A request just under the limit travels; one over it is refused with both numbers."""
    fits = job(prompt="é" * ((codec.MAX_PAYLOAD_BYTES - 200) // 2))
    assert codec.decode_job(codec.encode_job(fits)) == fits
    with pytest.raises(PayloadTooLarge, match=r"1,048,\d+ bytes, the limit is 1,048,576"):
        codec.encode_job(job(prompt="x" * codec.MAX_PAYLOAD_BYTES))


@pytest.mark.parametrize(
    "change",
    [{"prompt": "ho"}, {"ref": "ceo@1"}, {"agent": "b"}, {"params": {"seed": 1}}, {"params": {"stop": ["x"]}}],
)
def test_another_answer_is_another_request(change: dict[str, Any]) -> None:
    assert codec.fingerprint(job()) != codec.fingerprint(job(**change))


@pytest.mark.parametrize(
    "change", [{"priority": "high"}, {"stream": True}, {"client": "c"}, {"deadline_ms": 5}, {"id": "a2"}]
)
def test_the_same_answer_is_the_same_request(change: dict[str, Any]) -> None:
    """What does not change the answer does not make another request of it, nor does naming a default."""
    assert codec.fingerprint(job()) == codec.fingerprint(job(**change))
    assert codec.fingerprint(job()) == codec.fingerprint(job(params={"temperature": 0.0}))


def test_details_travel() -> None:
    told = (TokenLogprob(id=1, text=b"\xc3", logprob=-0.5, top=(TokenLogprob(id=2, text=b"b", logprob=-0.25),)),)
    calls = (ToolCall(id="call_1", name="f", arguments="{}"),)
    for detail in (
        codec.Detail((1, 2), (-0.5, -1.25)),
        codec.Detail(),
        codec.Detail((), ()),
        codec.Detail((1,), (-0.5,), told, calls),
    ):
        assert codec.decode_detail(codec.encode_detail(*detail)) == detail


def test_what_a_delta_brings_beside_text_travels() -> None:
    told = (TokenLogprob(id=1, text=b"\xc3\x00", logprob=-0.5),)
    for more in (More(), More(told), More((), (ToolCallDelta(index=0, id="call_1", name="f"),))):
        assert codec.decode_more(codec.encode_more(more)) == more


def test_a_request_that_an_older_reader_would_answer_wrongly_says_so() -> None:
    """It refuses what it does not understand, and reads all else."""
    chat = {"prompt": None, "messages": [{"role": "user", "content": "x"}]}
    newer = [
        {"prompt": None, "prompt_ids": [1, 2]},
        {"params": {"logit_bias": {5: -100}}},
        {"params": {"logprobs": True, "top_logprobs": 2}},
        {"response_format": {"kind": "json_object"}},
        {**chat, "tools": [{"name": "f"}]},
        {"prompt": None, "messages": [{"role": "tool", "content": "x", "tool_call_id": "call_1"}]},
    ]
    versions = [msgpack.unpackb(codec.encode_job(job(**change)))["v"] for change in (*newer, {}, chat)]
    assert [2] * len(newer) + [1, 1] == versions
    for change in newer:
        assert codec.decode_job(codec.encode_job(job(**change))) == job(**change)
        assert codec.fingerprint(job(**change)) != codec.fingerprint(job())


def test_a_seed_is_kept_or_drawn() -> None:
    assert codec.seed_of(job(params={"seed": 7})) == 7
    assert codec.seed_of(job()) != codec.seed_of(job())
