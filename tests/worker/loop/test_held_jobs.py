"""What a worker holds: who may end a job, what is still to be emitted."""

from __future__ import annotations

from typing import Any

import pytest

from lorapool.shared.job import FinishReason, More, TokenLogprob
from lorapool.shared.queue.protocol import ClaimedJob, Delta
from lorapool.worker.engine.port import Request, Sampling, Update
from lorapool.worker.loop.held_jobs import HeldJob, HeldJobs
from lorapool.worker.text.answer import Answer
from lorapool.worker.text.told_tokens import ToldTokens
from tests.fake_tokenizer import WordDetokenizer, WordSpelling


def held(
    job_id: str = "0.j", *, ref: str = "a@1", deadline_ms: int | None = None, stream: bool = True, stop: str = ""
) -> HeldJob:
    claimed = ClaimedJob(job_id, "lease", ref, "d", "agent", 1, 0, 1, 7, 100, 110, deadline_ms, b"")
    request = Request(f"{job_id}:1", ref, [1], Sampling(9))
    return HeldJob(claimed, request, Answer(WordDetokenizer(), (stop,) if stop else ()), stream=stream)


def asked(**options: Any) -> HeldJob:
    """One whose client wants logprobs."""
    job = held(**options)
    job.told = ToldTokens(WordSpelling())
    return job


def token(token_id: int, logprob: float, *top: TokenLogprob) -> TokenLogprob:
    return TokenLogprob(id=token_id, text=f"{token_id} ".encode(), logprob=logprob, top=top)


def test_only_one_may_end_a_job() -> None:
    """Of two that want to settle a job, the second is told no."""
    jobs, job = HeldJobs(), held()
    jobs.add(job)
    assert jobs.end(job)
    assert not jobs.end(job)
    jobs.check_integrity()


def test_ended_is_held_until_dropped() -> None:
    """A job whose settlement is on its way still has its lease renewed, but takes no row."""
    jobs, job = HeldJobs(), held()
    jobs.add(job)
    jobs.end(job)
    assert (0, 1) == (jobs.unfinished(), len(jobs.leases()))
    jobs.drop(job)
    assert [] == jobs.leases()
    jobs.check_integrity()


def test_expected_takes_a_row_until_it_is_met() -> None:
    """From its claim to its admission a job counts as unfinished and its lease is renewed, once in each respect."""
    jobs, mine, other = HeldJobs(), held("0.j"), held("0.k", ref="b@1")
    jobs.expect([mine.claimed, other.claimed])
    assert ({"a@1": 1, "b@1": 1}, 0) == (jobs.unfinished_by_adapter(), len(jobs))
    assert ["0.j", "0.k"] == [lease.job_id for lease in jobs.leases()]
    jobs.add(mine)
    jobs.admitted(mine.claimed)
    jobs.admitted(other.claimed)  # refused: it was never added
    assert ({"a@1": 1}, 1, ["0.j"]) == (
        jobs.unfinished_by_adapter(), len(jobs), [lease.job_id for lease in jobs.leases()]
    )  # fmt: skip
    jobs.check_integrity()


def test_what_is_expected_no_more_is_given_back() -> None:
    """When nobody is left to admit them, their leases are told, and they take no row."""
    jobs, mine, waiting = HeldJobs(), held("0.j"), held("0.k")
    jobs.expect([mine.claimed, waiting.claimed])
    jobs.add(mine)
    jobs.admitted(mine.claimed)
    jobs.mark_cancelled(waiting.lease)
    assert [waiting.lease] == jobs.expect_no_more()
    assert ({"a@1": 1}, [mine.lease], []) == (jobs.unfinished_by_adapter(), jobs.leases(), jobs.expect_no_more())
    assert not jobs.is_cancelled(waiting.claimed)
    jobs.check_integrity()


def test_dropping_an_older_claim_keeps_the_newer() -> None:
    """The late settlement of an older claim does not forget the same job claimed again."""
    jobs, older, newer = HeldJobs(), held(), held()
    jobs.add(older)
    jobs.drop(older)
    jobs.add(newer)
    jobs.drop(older)
    assert jobs.get("0.j") is newer
    jobs.check_integrity()


def test_claimed_twice_is_our_mistake() -> None:
    """Two claims of one job are never held together."""
    jobs = HeldJobs()
    jobs.add(held())
    with pytest.raises(AssertionError, match="held already"):
        jobs.add(held())


def test_unfinished_by_adapter() -> None:
    """Unfinished jobs are counted by adapter, for the claim policy."""
    jobs, done = HeldJobs(), held("0.c", ref="b@1")
    for job in (held("0.a"), held("0.b"), done):
        jobs.add(job)
    jobs.end(done)
    assert {"a@1": 2} == jobs.unfinished_by_adapter()


def test_every_change_is_told() -> None:
    """Whoever waits for a free row hears of each job that ends or goes."""
    told: list[int] = []
    jobs, job = HeldJobs(), held()
    jobs.on_change(lambda: told.append(1))
    jobs.add(job)
    jobs.end(job)
    jobs.drop(job)
    assert 2 == len(told)


def test_deltas_grow_while_unsent() -> None:
    """Updates that pile up become one delta, from the first one's offset on."""
    job = held()
    job.absorb(Update("0.j:1", (1,), 0), now_ms=130)
    job.absorb(Update("0.j:1", (2,), 1), now_ms=140)
    assert Delta("0.j", "lease", 1, 0, "1 2 ", (1, 2)) == job.take_delta()
    assert job.take_delta() is None
    job.absorb(Update("0.j:1", (3,), 2), now_ms=150)
    assert Delta("0.j", "lease", 1, 2, "3 ", (3,)) == job.take_delta()
    assert 130 == job.first_token_ms


def test_a_stop_string_ends_the_attempt() -> None:
    """The tokens that make it whole are counted and emitted; those that the engine drew meanwhile are not, nor their
    logprobs, and an end that it reports with them is none."""
    job = asked(stop="2 3")
    job.absorb(Update("0.j:1", (1, 2), 0, logprobs=(-0.1, -0.2)), now_ms=130)
    assert not job.is_over
    job.absorb(Update("0.j:1", (3, 4, 5), 2, FinishReason.LENGTH, logprobs=(-0.3, -0.4, -0.5)), now_ms=140)
    assert (FinishReason.STOP_SEQUENCE, None) == (job.finish_reason, job.error)
    told = (token(1, -0.1), token(2, -0.2), token(3, -0.3))
    assert job.told is not None
    assert ([1, 2, 3], told, "1 ") == (job.output_ids, tuple(job.told.all), job.answer.text)
    assert Delta("0.j", "lease", 1, 0, "1 ", (1, 2, 3), More(told)) == job.take_delta()


def test_what_is_told_of_tokens_goes_with_them() -> None:
    """Log probabilities, and alternatives spelled too, once each, in the delta that brings the token."""
    job = asked()
    job.absorb(Update("0.j:1", (1,), 0, logprobs=(-0.1,), top=(((1, -0.1), (7, -0.9)),)), now_ms=130)
    job.absorb(Update("0.j:1", (2,), 1, logprobs=(-0.2,), top=(((8, -0.1), (2, -0.2)),)), now_ms=140)
    first = token(1, -0.1, token(1, -0.1), token(7, -0.9))
    second = token(2, -0.2, token(8, -0.1), token(2, -0.2))
    assert Delta("0.j", "lease", 1, 0, "1 2 ", (1, 2), More((first, second))) == job.take_delta()
    job.absorb(Update("0.j:1", (3,), 2, logprobs=(-0.3,), top=(((3, -0.3),),)), now_ms=150)
    assert Delta("0.j", "lease", 1, 2, "3 ", (3,), More((token(3, -0.3, token(3, -0.3)),))) == job.take_delta()


def test_what_was_held_back_is_shown_at_the_end() -> None:
    """Where no stop string came of it; an error shows nothing more."""
    done, failed = held(stop="2 3"), held(stop="2 3")
    done.absorb(Update("0.j:1", (1, 2), 0, FinishReason.EOS_TOKEN), now_ms=130)
    assert (FinishReason.EOS_TOKEN, "1 2 ") == (done.finish_reason, done.answer.text)
    failed.absorb(Update("0.j:1", (1, 2), 0), now_ms=130)
    failed.absorb(Update("0.j:1", error=RuntimeError("broken")), now_ms=140)
    assert ("broken", "1 ", [1, 2]) == (str(failed.error), failed.answer.text, failed.output_ids)


def test_a_token_without_text_is_the_jobs_own_fault() -> None:
    """Its attempt is over with what the detokenizer raised; what it had until then stays."""

    class Broken(WordDetokenizer):
        def push(self, token_id: int) -> str:
            if token_id == 9:
                raise ValueError(f"no text for {token_id}")
            return super().push(token_id)

    job = held()
    job.answer = Answer(Broken())
    job.absorb(Update("0.j:1", (1,), 0), now_ms=130)
    job.absorb(Update("0.j:1", (9,), 1), now_ms=140)
    assert job.is_over and "no text for 9" in str(job.error)
    assert ([1], "1 ", 130) == (job.output_ids, job.answer.text, job.first_token_ms)


def test_no_deltas_unless_streamed() -> None:
    """A job that was not submitted with stream has nothing to emit."""
    job = held(stream=False)
    job.absorb(Update("0.j:1", (1,), 0), now_ms=130)
    assert job.take_delta() is None


def test_overdue() -> None:
    """Unfinished jobs past their deadline, and only those, are overdue."""
    jobs, ended = HeldJobs(), held("0.ended", deadline_ms=50)
    for job in (held("0.late", deadline_ms=50), held("0.soon", deadline_ms=51), held("0.never"), ended):
        jobs.add(job)
    jobs.end(ended)
    assert ["0.late"] == [job.job_id for job in jobs.overdue(50)]
