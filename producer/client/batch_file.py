"""BatchFile: a file of requests becomes a file of results, one JSON object a line, and goes on where it was cut off.

Each line has a job id of its own (given, or made from file, line number and text), so that asking again finds the job
that is there. An answer is written as it comes; a line that has one is not asked again. Knows files and a client; no
terminal.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, Literal

from lorapool.producer.client.client import Client
from lorapool.shared.errors import (
    AdapterNotReady,
    InvalidRequest,
    JobLost,
    LorapoolError,
    QueueFull,
    RedisFull,
    RedisUnreachable,
)
from lorapool.shared.job import Result
from lorapool.shared.server.keys import bare_id

AT_ONCE = 256
PASSING = (
    RedisUnreachable,
    RedisFull,
    QueueFull,
    AdapterNotReady,
    JobLost,
)  # no answers: such a line is asked next time


@dataclass(slots=True)
class Tally:
    """Lines by what became of them, of which ``already`` before; ``left`` have no answer yet, for these ``reasons``."""

    left: int
    succeeded: int = 0
    failed: int = 0
    already: int = 0
    reasons: set[str] = field(default_factory=set)
    stopped: bool = False

    def add(self, *, ok: bool) -> None:
        """One more has its answer."""
        self.left -= 1
        self.succeeded += ok
        self.failed += not ok

    @property
    def whole(self) -> bool:
        return not self.failed and not self.left


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    job_id: str
    arguments: dict[str, Any] | InvalidRequest


@dataclass(frozen=True, slots=True)
class _Held:
    """What a results file has of a line; ``tries`` counts how often its errors were asked again."""

    job_id: str
    ok: bool
    tries: int


class BatchFile:
    """``defaults`` are arguments of ``submit`` for lines that do not say otherwise."""

    def __init__(self, jobs: Path, results: Path, defaults: Mapping[str, Any], *, retry_errors: bool = False) -> None:
        self._jobs, self._results, self._defaults = jobs, results, dict(defaults)
        self._held = _read_results(results)
        self._retried: dict[int, int] = {}
        if retry_errors:
            self._retried = {number: held.tries + 1 for number, held in self._held.items() if not held.ok}
            self._held = {number: held for number, held in self._held.items() if held.ok}

    def count(self) -> int:
        """How many lines ask for something. Raises InvalidRequest."""
        with _opened(self._jobs) as jobs:
            return sum(1 for text in jobs if text.strip())

    async def run(self, client: Client, *, at_once: int = AT_ONCE, on_line: Callable[[], None] = lambda: None) -> Tally:
        """Ask every line that has no answer yet, ``at_once`` of them at a time; ``on_line`` hears of each.

        Cancelled, it leaves what it has; jobs under way go on, and the next run finds them. It stops when the server
        does not answer or takes no more. Raises InvalidRequest for a results file of other jobs.
        """
        tally = Tally(left=self.count())
        _keep(self._results, self._held if self._retried else None)
        with _opened(self._jobs) as jobs, _opened(self._results, "ab") as results:
            lines = self._lines(jobs)

            async def work() -> None:
                while not tally.stopped and (line := next(lines, None)):
                    await self._one(client, line, results, tally)
                    on_line()

            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(at_once):
                        group.create_task(work())
            except* InvalidRequest as errors:
                raise errors.exceptions[0] from None
            except* OSError as errors:
                raise InvalidRequest(f"{self._results}: cannot be written ({errors.exceptions[0]})") from None
        return tally

    async def _one(self, client: Client, line: _Line, results: IO[bytes], tally: Tally) -> None:
        if line.number in self._held:
            self._check_same(line)
            tally.add(ok=self._held[line.number].ok)
            tally.already += 1
            return
        outcome = await _answer(client, line)
        if isinstance(outcome, PASSING):
            tally.reasons.add(str(outcome))
            tally.stopped |= not isinstance(outcome, AdapterNotReady)
            return
        results.write(json.dumps(self._record(line, outcome), ensure_ascii=False).encode() + b"\n")
        results.flush()
        tally.add(ok=isinstance(outcome, Result))

    def _lines(self, jobs: IO[bytes]) -> Iterator[_Line]:
        for number, text in enumerate(jobs, 1):
            if text.strip():
                yield self._line(number, text.strip())

    def _line(self, number: int, text: bytes) -> _Line:
        where = f"{self._jobs.resolve()}\0{number}\0".encode()
        made = blake2b(where + text, digest_size=12).hexdigest()
        try:
            arguments = _arguments(text, self._defaults)
        except InvalidRequest as error:
            return _Line(number, f"f{made}", error)
        job_id = str(arguments.get("job_id") or f"f{made}")
        if tries := self._retried.get(number):
            job_id = f"{job_id}-{tries}"  # the failed job stays what it is
        return _Line(number, job_id, {**arguments, "job_id": job_id})

    def _check_same(self, line: _Line) -> None:
        held = self._held[line.number]
        asked = f"{line.job_id}-{held.tries}" if held.tries else line.job_id
        if held.job_id != asked:
            raise InvalidRequest(
                f"{self._results}: holds line {line.number} of other jobs than {self._jobs} has there; "
                f"give another --out, or remove it"
            )

    def _record(self, line: _Line, outcome: Result | LorapoolError) -> dict[str, Any]:
        tries = self._retried.get(line.number, 0)
        head = {"line": line.number, "job_id": line.job_id, **({"tries": tries} if tries else {})}
        if isinstance(outcome, Result):
            return {**head, "ok": True, **outcome.model_dump(mode="json", exclude={"job_id"})}
        return {**head, "ok": False, "error": type(outcome).__name__, "message": str(outcome)}


async def _answer(client: Client, line: _Line) -> Result | LorapoolError:
    if isinstance(line.arguments, InvalidRequest):
        return line.arguments
    arguments = {"on_lost": "resubmit", **line.arguments}
    adapter, prompt = arguments.pop("adapter"), arguments.pop("prompt", None)
    try:
        job = await client.submit(adapter, prompt, **arguments, wait=True)
        return await job.result()
    except LorapoolError as error:
        return error
    except TypeError as error:  # an argument that submit has for itself
        return InvalidRequest(str(error))


def _arguments(text: bytes, defaults: Mapping[str, Any]) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"not JSON ({error})") from None
    if not isinstance(fields, dict):
        raise InvalidRequest(f"expected a JSON object of submit() arguments, found {type(fields).__name__}")
    arguments = {**defaults, **fields}
    if "adapter" not in arguments:
        raise InvalidRequest('adapter: missing; say "adapter": null for the base model')
    if "wait" in fields or "stream" in fields:
        raise InvalidRequest("wait and stream have no place in a file: every answer is waited for")
    return arguments


def _opened(path: Path, mode: Literal["rb", "ab"] = "rb") -> IO[bytes]:
    try:
        return path.open(mode)
    except OSError as error:
        raise InvalidRequest(f"{path}: cannot be opened ({error.strerror})") from None


def _read_results(path: Path) -> dict[int, _Held]:
    """By line number; a last line that was cut off is taken away. Raises InvalidRequest for another kind of file."""
    if not path.exists():
        return {}
    held: dict[int, _Held] = {}
    whole = 0
    with path.open("rb") as results:
        for text in results:
            if not text.endswith(b"\n"):
                break
            whole += len(text)
            held.update([_held(path, text)])
    if whole < path.stat().st_size:
        os.truncate(path, whole)
    return held


def _held(path: Path, text: bytes) -> tuple[int, _Held]:
    try:
        record = json.loads(text)
        return int(record["line"]), _Held(bare_id(record["job_id"]), bool(record["ok"]), int(record.get("tries", 0)))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise InvalidRequest(f"{path}: is no results file of lorapool submit; give another --out") from None


def _keep(path: Path, held: Mapping[int, _Held] | None) -> None:
    """Only those lines of a results file; None keeps all."""
    if held is None or not path.exists():
        return
    partial = path.with_name(f".{path.name}.partial")
    with path.open("rb") as results, partial.open("wb") as kept:
        kept.writelines(text for text in results if _held(path, text)[0] in held)
    partial.replace(path)
