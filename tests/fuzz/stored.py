"""What stands in Redis: replies of scripts, entries of streams, hashes; read by workers and clients."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any

import msgpack

from lorapool.producer.aos import status
from lorapool.producer.client import record
from lorapool.producer.client.stream import Splicer
from lorapool.producer.commands import fleet
from lorapool.shared import codec, malformed
from lorapool.shared.catalog.adapter_record import AdapterRecord
from lorapool.shared.catalog.aliases import _move
from lorapool.shared.errors import MalformedEntry
from lorapool.shared.job import FinishReason, Job, Result, Timings, Usage
from lorapool.shared.malformed import readable, required, text_map
from lorapool.shared.queue import replies
from lorapool.shared.queue.explain import explanation
from lorapool.shared.queue.fsck import checked
from lorapool.shared.server.keys import Keys
from lorapool.shared.timetable.timetable import _entry_or_error
from lorapool.shared.tools import ToolCall
from lorapool.worker import cli
from tests.fuzz import mutation
from tests.fuzz.target import Target

KEYS = Keys("default")
JOB = Job(id="j1", ref="cfo@1", prompt="How long?", params={"stop": ("a",), "max_new_tokens": 4})
CHAT = Job(id="j2", ref="cfo@1", messages=({"role": "user", "content": "Hello"},))
HEAD = b"j1 cfo@1 " + b"ab" * 32 + b" board 1 0 1 7 1700000000000 1700000000001 -"
VIEW = b"1700000000000 - 2 0 cfo@1 1700000000000 3 17.5 ceo@1 1700000000000 1 0"
DETAIL = codec.encode_detail((1, 2, 3), (-0.5, -0.25, 0.0))
ANSWER = (
    b"succeeded\tcfo@1\tabab\tboard\t7\t1\tw1\t17000\t17001\t17002\t17003\t0\t1\tcpu\tfloat32\tlength\t3\t2\t4\ntext"
    + DETAIL
)
RECORD = {
    b"state": b"succeeded", b"ref": b"cfo@1", b"digest": b"abab", b"agent": b"board", b"seed": b"7", b"attempts": b"1",
    b"worker": b"w1", b"submitted_ms": b"17000", b"started_ms": b"17001", b"first_token_ms": b"17002",
    b"finished_ms": b"17003",
    b"load_ms": b"0", b"resident": b"1", b"device": b"cpu", b"dtype": b"float32", b"text": b"text", b"detail": DETAIL,
    b"finish_reason": b"length", b"prompt_tokens": b"3", b"completion_tokens": b"2", b"error": b"", b"message": b"",
}  # fmt: skip
ADAPTER = {
    b"id": b"cfo", b"version": b"1", b"digest": b"ab" * 32, b"uri": b"file:///adapters/cfo", b"status": b"ready",
    b"rank": b"4",
    b"targets": b'["q_proj","v_proj"]', b"metadata": b'{"team":"board"}', b"aliases": b"chief money",
    b"prompt_format": b'{"kind":"custom","prefix":"Q: ","suffix":"\\n"}', b"v": b"1", b"registered_ms": b"17000",
}  # fmt: skip
ENTRY = {
    b"name": b"daily", b"v": b"1", b"cron": b"0 8 * * *", b"tz": b"Europe/Berlin", b"prompt": b"Good morning",
    b"agent": b"a",
    b"params": b'{"max_new_tokens":8}', b"priority": b"normal", b"next_ms": b"1700000000000",
    b"max_late_ms": b"3600000",
}  # fmt: skip
FACTS = {
    "now_ms": "1700000000000", "worker_seen_ms_ago": "20", "adapter_state": "open", "adapter_waiting": "1",
    "lane": "normal",
    "adapter_running": "0", "adapter_max_inflight": "", "ahead": "0", "state": "queued", "ref": "cfo@1",
    "agent": "board",
    "worker": "w1", "attempts": "1", "lost": "0", "cancel": "", "started_ms": "1", "first_token_ms": "",
    "finished_ms": "",
    "due_ms": "", "deadline_ms": "", "error": "", "message": "", "submitted_ms": "1", "dead": "",
}  # fmt: skip
BEAT = {
    b"state": b"running", b"held": b"3", b"free_rows": b"5", b"slots": b"8", b"age_ms": b"17", b"tokens_per_s": b"17.5",
    b"max_batch": b"64", b"resident": b"cfo@1 ceo@1", b"step_age_ms": b"20", b"not_here": b"x@1", b"device": b"cpu",
}  # fmt: skip
LETTER = [b"j1", b"cfo@1", b"board", b"Poisonous", b"its worker vanished", b"3", b"3", b"1700000000000", b""]


def target(name: str, check: Callable[[Any], Any], *samples: Any, limit_s: float = 1.0) -> Target:
    """Over bytes as Redis gives them; what the check returns does not matter."""

    def draw(random: Random) -> Any:
        sample = random.choice(samples)
        return _replied(random, mutation.changed(random, sample), sample)

    return Target(name, draw, lambda case: check(case) and None, limit_s)


def _replied(random: Random, changed: Any, sample: Any) -> Any:
    """In the shape that Redis keeps: a hash is a map of bytes, a script's answer a list of bytes or of such lists."""
    match sample:
        case dict():
            fields = changed if isinstance(changed, dict) else {}
            return {_bytes(random, name): _bytes(random, value) for name, value in fields.items()}
        case list():
            inner = sample[-1] if isinstance(sample[-1], list) else b""
            return [
                _replied(random, item, inner if isinstance(item, list) else b"")
                for item in (changed if isinstance(changed, list) and changed else sample)
            ]
    return _bytes(random, changed)


def _bytes(random: Random, value: Any) -> bytes:
    match value:
        case bytes():
            return value
        case str():
            return value.encode(errors="surrogatepass")
    return mutation.junk(random)


ENDED = Result(
    job_id="0.j1", text="text", finish_reason=FinishReason.LENGTH, usage=Usage(prompt_tokens=1, completion_tokens=1),
    timings=Timings(), adapter="a@1", digest="", agent="ada", attempts=1, worker="w", device="cpu", dtype="float32",
    seed=1, resident=True, tool_calls=(ToolCall(id="call_1", name="f", arguments="{}"),),
)  # fmt: skip


def claimed(answer: Any) -> None:
    """A claim: sound jobs come, whatever the others are, and each head is accounted for or counted."""
    claim = replies.claim(answer, "lease", KEYS)
    for job in claim.jobs:
        required("the request", partial(codec.decode_job, job.payload))


def entries(fields: Any) -> None:
    """Entries of all streams, by each of their readers; the reader gets past each."""
    named = {name.decode(errors="replace"): value for name, value in fields.items()}
    assert len(named) == len(list(replies.notices("1-0", named, KEYS)))
    splicer = Splicer()
    for kind in (b"delta", b"restart", b"end"):
        item = replies.token_item("1-0", {**named, "kind": kind})
        splicer.take(item)
    assert "1-0" == replies.token_item("1-0", named).entry_id
    splicer.rest(ENDED)
    replies.control(named, KEYS)


def results(fields: Any) -> None:
    """A job's record, as the awaiter, the command line and the inbox read it."""
    found = replies.record(fields)
    if found is None:
        return
    record.state_of(found)
    record.timings_of(found)
    record.result_of("0.j1", found)


def counters(fields: Any) -> None:
    """Numbers come as numbers that can be shown."""
    for number in (*malformed.numbers(fields).values(), *malformed.whole_numbers(fields).values()):
        assert isinstance(number, int | float)
    for number in malformed.numbers(fields).values():
        assert float(f"{number:.0f}") == float(f"{number:.0f}"), number


def shown(fields: Any) -> None:
    """A worker's heartbeat, as screens and AOS's status show it."""
    beat = {"worker": "w1", **text_map(fields)}
    for tell in (fleet._worker, status._worker, cli._state):
        tell(beat)
    for name, column in fleet._SPECIAL.items():
        column(beat.get(name, ""))


def payload(packed: bytes) -> None:
    codec.decode_job(packed)


def detail(packed: bytes) -> None:
    codec.decode_detail(packed)


def draw_packed(sample: bytes) -> Callable[[Random], bytes]:
    """Msgpack, changed as bytes or as what it stands for."""

    def draw(random: Random) -> bytes:
        if random.random() < 0.5:
            return mutation.changed_bytes(random, sample)
        try:
            packed: bytes = msgpack.packb(mutation.changed(random, msgpack.unpackb(sample)))
        except (ValueError, OverflowError, UnicodeError):  # a number or a text that msgpack does not know
            return mutation.junk(random)
        return packed

    return draw


def explained(facts: Any) -> None:
    texts = text_map(facts)
    for loading in (frozenset(), frozenset({"cfo@1"})):
        required("the job", partial(explanation, "0.j1", texts, loading))


def enqueued(answer: bytes) -> None:
    text = answer.decode(errors="replace")
    with suppress(MalformedEntry):
        replies.enqueued(text, JOB, KEYS)
    replies.settled(text, "0.j1")
    replies.state(answer)


STATES = (b"queued", b"running", b"delayed", b"succeeded", b"failed")
TARGETS = (
    target("replies.claim", claimed, [VIEW, HEAD, codec.encode_job(JOB), HEAD, codec.encode_job(CHAT)]),
    target("replies.view", lambda case: replies.view(case.decode(errors="replace")), VIEW),
    target("replies.enqueued", enqueued, b"new queued", b"same running", b"full agent 64 64 100", b"conflict",
    b"paused"),
    target("replies.dead", lambda case: replies.dead_page(case, KEYS), [b"1-0", LETTER, LETTER]),
    target("replies.limits", replies.limits, [b"10", b"", b"64", b"1.5"]),
    target("replies.counters", counters, {b"submitted": b"3", b"total_ms": b"17.5", b"tokens": b"99"}),
    target("replies.fsck", checked, [b"keys 17", b"waiting_gauge", b"cfo@1"]),
    target("replies.moves", lambda case: readable("move", case, _move), [b"17000 set - cfo@1 ab",
    b"17001 delete cfo@1 - cd"]),
    target("replies.explain", explained, *({**FACTS, "state": state.decode()} for state in STATES)),
    target("entries", entries, {b"j1": ANSWER, b"j2": b"failed"}, {
        b"kind": b"delta", b"attempt": b"1", b"offset": b"0", b"text": b"Hi", b"token_ids": b"1 2", b"state": b"failed",
    }, {b"op": b"cancel", b"job_id": b"j1", b"lease": b"b.1"}),
    target("records.job", results, RECORD, {**RECORD, b"state": b"failed"}, {**RECORD, b"state": b"running"}),
    target("records.adapter", AdapterRecord.of_reply, ADAPTER),
    target("records.schedule", partial(_entry_or_error, "daily"), ENTRY),
    target("records.worker", shown, BEAT),
    Target("payload", draw_packed(codec.encode_job(JOB)), payload),
    Target("payload.chat", draw_packed(codec.encode_job(CHAT)), payload),
    Target("detail", draw_packed(DETAIL), detail),
)  # fmt: skip
