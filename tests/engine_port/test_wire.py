"""Engine wire: what goes in at one end comes out at the other, whatever it says."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorapool.shared import errors
from lorapool.shared.errors import LorapoolError
from lorapool.shared.job import FinishReason
from lorapool.worker.engine import port as engine_port
from lorapool.worker.engine.adapter_source import AdapterSource
from lorapool.worker.engine.port import (
    EngineCounters,
    EngineError,
    EngineSick,
    OutOfMemory,
    Report,
    Request,
    Residency,
    Sampling,
    Start,
    Update,
    name_of,
)
from lorapool.worker.engine_process import wire

TEXT = st.text(max_size=20)
ANY_TEXT = st.text(st.characters(), max_size=20)  # halves of characters too
COUNT = st.integers(0, 2**63 - 1)
FLOAT = st.floats(allow_nan=False, width=64)
PAIR = st.tuples(COUNT, FLOAT)
PARAMS = st.builds(
    Sampling,
    max_new_tokens=st.integers(5, 500),
    seed=COUNT,
    temperature=st.floats(0, 2),
    top_p=st.floats(0.01, 1),
    top_k=st.integers(0, 100),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.1, 10),
    frequency_penalty=st.floats(-2, 2),
    presence_penalty=st.floats(-2, 2),
    min_new_tokens=st.integers(0, 5),
    eos_ids=st.lists(COUNT, max_size=3).map(tuple),
    ignore_eos=st.booleans(),
    logprobs=st.booleans(),
    top_logprobs=st.integers(0, 20),
    logit_bias=st.lists(PAIR, max_size=3).map(tuple),
)
SOURCES = st.none() | st.builds(AdapterSource, TEXT, TEXT, TEXT)
REQUESTS = st.builds(Request, TEXT, TEXT, st.lists(COUNT, max_size=30), PARAMS, SOURCES)
UPDATES = st.builds(
    Update,
    TEXT,
    st.lists(COUNT, max_size=4).map(tuple),
    COUNT,
    st.none() | st.sampled_from(FinishReason),
    st.none(),
    st.lists(FLOAT, max_size=4).map(tuple),
    st.lists(st.lists(PAIR, max_size=3).map(tuple), max_size=3).map(tuple),
)
REPORTS = st.builds(
    Report, st.lists(st.builds(Start, TEXT, COUNT, st.booleans()), max_size=3), st.lists(UPDATES, max_size=5)
)


def _carried(*parts: Any) -> list[Any]:
    """The parts of a message as they are read at the other end."""
    frame = wire.framed("kind", *parts)
    assert wire.size_of(frame[: wire.LENGTH.size]) == len(frame) - wire.LENGTH.size
    kind, *found = wire.opened(frame[wire.LENGTH.size :])
    assert kind == "kind"
    return found


@given(st.lists(REQUESTS, max_size=3))
def test_requests_stay_what_they_are(requests: list[Request]) -> None:
    """Params that are not the defaults, seeds of 63 bits, adapters or none."""
    assert requests == wire.requests_of(*_carried(wire.packed_requests(requests)))


@given(REPORTS)
def test_reports_stay_what_they_are(report: Report) -> None:
    """In order, with tokens, offsets, reasons and logprobs."""
    assert report == wire.report_of(*_carried(wire.packed_report(report)))


@given(st.sets(TEXT), st.sets(TEXT), st.sets(TEXT))
def test_residency_stays_what_it_is(device: set[str], loading: set[str], host: set[str]) -> None:
    """Whatever the refs are."""
    residency = Residency(frozenset(device), frozenset(loading), frozenset(host))
    assert residency == wire.residency_of(*_carried(wire.packed_residency(residency)))


@given(COUNT, COUNT, st.dictionaries(st.integers(0, 99), st.integers(1, 99)), st.dictionaries(TEXT, st.integers(1, 99)))
def test_counters_stay_what_they_are(steps: int, rows: int, mixed: dict[int, int], loaded: dict[str, int]) -> None:
    """Those by something too, whose keys are numbers or refs."""
    counters = EngineCounters(steps=steps, step_rows=rows, mixed_steps=Counter(mixed), loaded=Counter(loaded))
    found = wire.counters_of(*_carried(wire.packed_counters(counters)))
    assert counters == found
    assert Counter({name: 2 * count for name, count in loaded.items()}) == (found + counters).loaded


def _plain(kind: type) -> bool:
    """Made of its words alone."""
    try:
        kind("words")
    except TypeError:
        return False
    return True


OURS = [
    kind
    for module in (errors, engine_port)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, LorapoolError) and _plain(kind)
]


def _error(packed: Exception) -> Exception:
    [update] = wire.report_of(*_carried(wire.packed_report(Report(updates=[Update("s", error=packed)])))).updates
    assert update.error is not None
    return update.error


@given(st.sampled_from(OURS), TEXT)
def test_our_errors_keep_their_class_and_words(kind: type[Exception], words: str) -> None:
    """What the worker does with a job hangs on the class."""
    error = _error(kind(words))
    assert type(error) is kind
    assert str(error) == str(kind(words))


@given(ANY_TEXT)
def test_others_errors_keep_their_name_and_words(words: str) -> None:
    """Halves of characters, which msgpack does not carry, are replaced; the name is what jobs are told."""
    for error in (_error(OutOfMemory(words)), _error(_error(OutOfMemory(words)))):
        assert isinstance(error, EngineError)
        assert "OutOfMemory" == name_of(error)
        assert words.encode(errors="replace").decode() == str(error)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise KeyError("no words")


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "not allowed"), "UnicodeEncodeError"),
        (KeyError("x"), "KeyError"),
        (OSError(28, "No space left"), "OSError"),
        (Unspeakable(), "Unspeakable"),
    ],
)
def test_errors_of_more_than_words_keep_their_name(error: Exception, name: str) -> None:
    """They cannot be made again from their words, or cannot even say them."""
    assert name == name_of(_error(error))


def test_ours_that_are_more_than_words_are_known() -> None:
    """Whoever adds such an error sees here that it arrives by its name alone."""
    assert {EngineSick, errors.BaseModelError, errors.CheckpointError, errors.AdapterUnavailable} <= set(OURS)
    assert {errors.AdapterConflict, errors.InvalidRequest, errors.UnknownAdapter} <= set(OURS)


@given(st.binary(max_size=40))
def test_what_is_no_message_is_refused(body: bytes) -> None:
    """By ValueError, whatever it is; what is a list that begins with a word passes."""
    try:
        message = wire.opened(body)
    except ValueError:
        return
    assert isinstance(message[0], str)


def test_a_length_that_nothing_has_is_refused() -> None:
    """Waiting for four gigabytes would be for ever."""
    with pytest.raises(ValueError, match="4294967295 bytes"):
        wire.size_of(b"\xff" * 4)


@pytest.mark.parametrize("part", [2**64, "\ud800", object()])
def test_what_cannot_be_carried_raises(part: object) -> None:
    """Before anything is sent."""
    with pytest.raises((ValueError, TypeError, OverflowError)):
        wire.framed("kind", part)
