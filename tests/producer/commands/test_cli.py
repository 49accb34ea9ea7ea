"""``lorapool``: what a person reads, what a program reads, and how either hears of an error."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from typer.testing import CliRunner
from typer.testing import Result as Outcome

from lorapool.producer import Result
from lorapool.producer.cli import app
from lorapool.producer.testing import lorapool_pool, lorapool_server
from lorapool.producer.testing.canned import CannedPool
from lorapool.producer.testing.canned_reply import CannedCall
from lorapool.shared.catalog.catalog import AdapterRecord
from lorapool.shared.tools import ToolChoice

__all__ = ["lorapool_pool", "lorapool_server"]

Run = Callable[..., Outcome]
Make = Callable[..., Path]


def _json(outcome: Outcome) -> Any:
    assert outcome.exit_code == 0, outcome.output
    return json.loads(outcome.stdout)


def test_submit_prints_the_id_and_how_to_get_the_answer(run: Run) -> None:
    """The id alone on stdout, for $(…); the hint on stderr."""
    outcome = run("submit", "_base", "hello", "--job-id", "mine")
    assert (outcome.exit_code, outcome.stdout) == (0, "0.mine\n")
    assert "lorapool result 0.mine" in outcome.stderr


def test_submit_and_result_bring_the_answer(run: Run, threaded_worker: None) -> None:
    """The text alone on stdout; who, how much and how long on stderr."""
    outcome = run("submit", "_base", "hello there", "--wait", "--max-new-tokens", "3")
    assert (outcome.exit_code, outcome.stdout) == (0, "_base heard: hello\n")
    for part in ("_base", "2 + 3 tokens", "length", "total", "worker canned"):
        assert part in outcome.stderr
    run("submit", "_base", "later", "--job-id", "mine")
    assert run("result", "mine").stdout == "_base heard: later\n"


def test_log_probabilities_and_biases_are_asked_for(run: Run, lorapool_pool: CannedPool) -> None:
    """By flags; the answer's tokens are in its JSON, to the byte. What is no bias is said."""
    lorapool_pool.answer(None, "Élan vital.")
    flags = ["--logprobs", "--top-logprobs", "2", "--logit-bias", "5=-100", "--logit-bias", "7=1.5"]
    where = ["--redis-url", lorapool_pool.redis_url, "--pool", lorapool_pool.name]
    told = _json(run("submit", "_base", "x", "--wait", "--json", *flags, *where))["token_logprobs"]
    assert "Élan vital.".encode() == b"".join(bytes(token["text"]) for token in told)
    assert [2, 2] == [len(token["top"]) for token in told]
    [request] = lorapool_pool.requests
    assert ((5, -100.0), (7, 1.5)) == request.job.params.logit_bias
    assert "expected TOKEN_ID=BIAS" in run("submit", "_base", "x", "--logit-bias", "five=1").stderr
    assert "top_logprobs 2 needs logprobs" in run("submit", "_base", "x", "--top-logprobs", "2").stderr


def test_tools_come_from_a_file_and_calls_are_shown(run: Run, lorapool_pool: CannedPool, tmp_path: Path) -> None:
    """A call a line, after the text; with --json as fields; which tool is to be called is a name, or a mode."""
    lorapool_pool.answer(None, ["I ask.", CannedCall("weather", {"city": "Köln"})])
    tools = tmp_path / "tools.json"
    tools.write_text('[{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]')
    asked = ["submit", "_base", "Rain?", "--chat", "--tools", str(tools), "--redis-url", lorapool_pool.redis_url]
    asked += ["--pool", lorapool_pool.name]
    shown = run(*asked, "--wait").stdout
    assert re.fullmatch(r'I ask\.\nweather {"city": "K\\u00f6ln"} call_[0-9a-f]{24}\n', shown)
    assert "weather" in run(*asked, "--stream").stdout.splitlines()[1]
    lines = [json.loads(line) for line in run(*asked, "--stream", "--json").stdout.splitlines()]
    pieces = [piece for line in lines for piece in line.get("delta", {}).get("tool_calls", ())]
    assert lines[-1]["result"]["tool_calls"][0]["arguments"] == "".join(piece.get("arguments", "") for piece in pieces)
    [call] = _json(run(*asked, "--wait", "--json", "--tool-choice", "weather"))["tool_calls"]
    assert ("weather", {"city": "Köln"}) == (call["name"], json.loads(call["arguments"]))
    assert ToolChoice(mode="required", names=("weather",)) == lorapool_pool.requests[-1].job.tool_choice
    assert "which are none of tools" in run(*asked, "--tool-choice", "whether").stderr
    tools.write_text("[")
    assert "tools.json" in run(*asked).stderr


def test_the_form_of_an_answer_is_asked_for(run: Run, lorapool_pool: CannedPool, tmp_path: Path) -> None:
    """By one flag, whose content may lie in a file; two, or a form that is none, are refused at once."""
    (schema := tmp_path / "schema.json").write_text('{"type": "object"}')
    (grammar := tmp_path / "yes.lark").write_text('start: "yes"')
    where = ["--redis-url", lorapool_pool.redis_url, "--pool", lorapool_pool.name]
    for flags, form in {
        ("--json-schema", str(schema)): ("json_schema", '{"type": "object"}'),
        ("--json-schema", '{"type": "array"}'): ("json_schema", '{"type": "array"}'),
        ("--json-object",): ("json_object", ""),
        ("--regex", "[0-9]+"): ("regex", "[0-9]+"),
        ("--choice", "a", "--choice", "b"): ("choice", '["a", "b"]'),
        ("--grammar", str(grammar)): ("lark", 'start: "yes"'),
    }.items():
        assert run("submit", "_base", "x", "--wait", *flags, *where).exit_code == 0
        asked = lorapool_pool.requests[-1].job.response_format
        assert form == (asked.kind, asked.value)
    assert "an answer has one form" in run("submit", "_base", "x", "--regex", "a", "--choice", "a").stderr
    assert "expected one of" in run("submit", "_base", "x", "--json-schema", '{"type": "poem"}').stderr
    assert "/nowhere" in run("submit", "_base", "x", "--grammar", "/nowhere").stderr


def test_submit_streams_the_text(run: Run, threaded_worker: None) -> None:
    """Whole and once."""
    assert run("submit", "_base", "a b c", "--stream").stdout == "_base heard: a b c\n"


@pytest.mark.parametrize(
    ("arguments", "heard"),
    [
        (["hello", "--chat"], "hello"),
        (["--message", "system:Be brief.", "--message", "user: why?"], "why?"),
        (["and now?", "-m", "user:a", "-m", "assistant:b"], "and now?"),
    ],
)
def test_chat_messages_are_sent_as_such(run: Run, threaded_worker: None, arguments: list[str], heard: str) -> None:
    """--chat makes the prompt a user message; --message gives the turns; a prompt after them is the last."""
    assert run("submit", "_base", *arguments, "--wait").stdout == f"_base heard: {heard}\n"


def test_a_prompt_may_come_from_stdin(redis_url: str, pool_name: str, threaded_worker: None) -> None:
    """As ``-``."""
    env = {"LORAPOOL_REDIS_URL": redis_url, "LORAPOOL_POOL": pool_name}
    outcome = CliRunner().invoke(app, ["submit", "_base", "-", "--wait"], env=env, input="from a pipe")
    assert outcome.stdout == "_base heard: from a pipe\n"


def test_a_zero_is_a_value(run: Run, threaded_worker: None) -> None:
    """Seed 0 is asked for, not left open."""
    assert _json(run("submit", "_base", "x", "--seed", "0", "--wait", "--json"))["seed"] == 0


def test_every_flag_is_an_environment_variable(run: Run, threaded_worker: None) -> None:
    """LORAPOOL_ and the flag's name; the command line wins."""
    outcome = run("submit", "_base", "a b c", LORAPOOL_WAIT="1", LORAPOOL_MAX_NEW_TOKENS="3", LORAPOOL_JSON="1")
    assert _json(outcome)["usage"]["completion_tokens"] == 3
    outcome = run("submit", "_base", "a b c", "-n", "4", LORAPOOL_WAIT="1", LORAPOOL_MAX_NEW_TOKENS="3")
    assert outcome.stdout == "_base heard: a b\n"


def test_adapters_are_registered_listed_shown_and_named(run: Run, threaded_worker: None, make_adapter: Make) -> None:
    """The life of an adapter on the command line."""
    folder = str(make_adapter())
    outcome = run("adapters", "register", "cfo", folder, "--alias", "CFO", "--metadata", "owner=board")
    assert re.fullmatch(r"cfo@1\.0\.0 is ready \([0-9a-f]{12}\)\n", outcome.stdout)
    assert run("adapters", "alias", "money", "cfo").stdout == "money is now cfo@1.0.0\n"
    listed = run("adapters", "ls").stdout.splitlines()
    assert listed[0].split() == ["REF", "STATUS", "RANK", "ALIASES", "DIGEST", "AGE"]
    assert listed[1].split()[:5] == ["cfo@1.0.0", "ready", "4", "cfo,", "money"]
    shown = run("adapters", "show", "CFO").stdout
    assert "owner=board" in shown
    assert folder in shown


def test_a_waiting_job_is_explained_and_cancelled(run: Run) -> None:
    """Why it waits, and its end."""
    run("submit", "_base", "hello", "--job-id", "mine")
    assert "no live worker" in run("job", "mine", "--explain").stdout
    outcome = run("result", "mine", "--no-wait")
    assert (outcome.exit_code, outcome.stderr) == (1, "error: job 0.mine is queued: it has not ended yet\n")
    assert run("cancel", "mine").stdout == "0.mine is cancelled\n"
    assert run("cancel", "mine").stdout == "0.mine is cancelled\n"
    assert "cancelled" in run("job", "mine").stdout


def test_stats_and_workers_are_tables(run: Run, threaded_worker: None) -> None:
    """Counters by adapter, of one, of an agent; live workers."""
    run("submit", "_base", "hello", "--wait", "--agent", "board-7")
    assert run("stats").stdout.splitlines()[1].split()[:5] == ["_base", "1", "1", "0", "3"]
    assert re.search(r"^submitted +1$", run("stats", "_base").stdout, re.MULTILINE)
    assert re.search(r"^agent +board-7$", run("stats", "--agent", "board-7").stdout, re.MULTILINE)
    assert run("workers").stdout.splitlines()[1].startswith("canned  cpu float32")


def test_what_ails_a_worker_is_shown(run: Run, redis_url: str, pool_name: str) -> None:
    """How far loading is, how old the running step, what ails it; columns that nobody fills are left out."""
    beats = {
        "w1": {"state": "running", "device": "cuda:0", "step_age_ms": 61_500, "ails": "step hangs"},
        "w2": {"state": "loading", "progress": "weights 40 %", "step_age_ms": 0, "ails": "", "not_here": ""},
    }
    with Redis.from_url(redis_url) as redis:
        for name, fields in beats.items():
            redis.hset(f"lp:{{{pool_name}}}:worker:{name}", mapping=fields)
            redis.zadd(f"lp:{{{pool_name}}}:workers", {name: 9e12})
    heading, first, second = run("workers").stdout.splitlines()
    assert heading.split()[-5:] == ["SEEN", "PROGRESS", "STEP", "AGE", "AILS"]
    assert re.search(r"^w1 +cuda:0 +running .* 61.5 s +step hangs$", first)
    assert re.search(r"^w2 +- +loading .* weights 40 % +- +-$", second)


def test_an_empty_pool_is_said_to_be_empty(run: Run) -> None:
    """On stderr, with the next step; nothing on stdout."""
    hints = {"adapters ls": "adapters register", "workers": "lorapool-worker run", "stats": "no job"}
    for command, hint in hints.items():
        outcome = run(*command.split())
        assert (outcome.exit_code, outcome.stdout) == (0, "")
        assert hint in outcome.stderr


@pytest.mark.parametrize("columns", [80, 120])
def test_tables_fit_the_terminal(run: Run, threaded_worker: None, make_adapter: Make, columns: int) -> None:
    """No line is longer than it is wide, and no value is cut off."""
    run("adapters", "register", "head-of-marketing-and-brand", str(make_adapter()), "--version", "2026.11.24-rc1")
    run("submit", "head-of-marketing-and-brand", "x", "--wait")
    for command in ("adapters ls", "stats", "workers"):
        text = run(*command.split(), columns=columns).stdout
        assert max(map(len, text.splitlines())) <= columns, text
        assert "…" not in text
    assert "--max-new-tokens" in run("submit", "--help", columns=columns).stdout


def test_the_json_of_every_command_has_its_shape(run: Run, threaded_worker: None, make_adapter: Make) -> None:
    """What a program may rely on."""
    record = _json(run("adapters", "register", "cfo", str(make_adapter()), "--json"))
    assert AdapterRecord.model_validate(record).ref == record["ref"] == "cfo@1.0.0"
    assert _json(run("adapters", "show", "cfo", "--json")) == record
    assert _json(run("adapters", "ls", "--json")) == [record]
    assert _json(run("adapters", "alias", "money", "cfo", "--json"))["aliases"] == ["money"]
    assert _json(run("submit", "cfo", "hi", "--job-id", "one", "--json")) == {"job_id": "0.one", "created": True}
    result = _json(run("result", "one", "--json"))
    assert Result.model_validate(result).text == "cfo@1.0.0 heard: hi"
    assert _json(run("submit", "cfo", "hi", "--job-id", "one", "--wait", "--json")) == result
    assert _json(run("cancel", "one", "--json")) == {"job_id": "0.one", "state": "succeeded"}
    job = _json(run("job", "one", "--explain", "--json"))
    numbers = ("attempts", "submitted_ms", "started_ms", "finished_ms", "prompt_tokens", "completion_tokens", "seed")
    assert all(isinstance(job[name], int) for name in numbers), job
    assert (job["state"], job["text"], job["stream"]) == ("succeeded", "cfo@1.0.0 heard: hi", False)
    assert job["explanation"].keys() == {"reason", "message", "facts"}
    assert _json(run("stats", "cfo", "--json")) == _json(run("stats", "--json"))[0]
    assert _json(run("stats", "cfo", "--json"))["counters"]["succeeded"] == 1
    assert _json(run("stats", "--agent", "cli", "--json"))["agent"] == "cli"
    assert _json(run("workers", "--json"))[0]["worker"] == "canned"


def test_a_streamed_answer_as_json_is_one_object_a_line(run: Run, threaded_worker: None) -> None:
    """Deltas, then the result."""
    lines = [json.loads(line) for line in run("submit", "_base", "a b", "--stream", "--json").stdout.splitlines()]
    *deltas, last = lines
    assert "".join(line["delta"]["text"] for line in deltas) == last["result"]["text"] == "_base heard: a b"
    assert deltas[0]["delta"] == {"attempt": 1, "offset": 0, "text": "_base", "token_ids": [0], "restart": False}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["submit", "nobody", "x"], 1, "no adapter, alias or version 'nobody'"),
        (["submit", "_base", "x", "--temperature", "9"], 1, "temperature = 9.0"),
        (["submit", "_base", "x", "--max-new-tokens", "0"], 1, "max_new_tokens = 0"),
        (["submit", "_base", "fail", "--wait"], 1, "PromptTooLong: 9000 tokens exceed 2048"),
        (["result", "nothing"], 1, "job 0.nothing is not known"),
        (["adapters", "register", "x", "/nowhere"], 1, "/nowhere: has no adapter_config.json"),
        (["submit", "_base"], 2, "give a PROMPT, or at least one --message"),
        (["submit", "_base", "--message", "boss:hi"], 2, "expected system:TEXT, user:TEXT or assistant:TEXT"),
        (["submit", "_base", "x", "--tempo", "1"], 2, "--tempo"),
        (["submit", "_base", "x", "--seed", "many"], 2, "--seed"),
        (["--pool", "x", "stats"], 2, "options come after the command"),
        (["stats", "cfo", "--agent", "x"], 2, "either REF or --agent"),
        (["launch"], 2, "launch"),
    ],
)
def test_an_error_is_one_line_on_stderr(
    run: Run, threaded_worker: None, arguments: list[str], code: int, message: str
) -> None:
    """Exit code 1 when the pool says no, 2 when the command line is wrong; nothing on stdout; no traceback."""
    outcome = run(*arguments)
    assert (outcome.exit_code, outcome.stdout) == (code, "")
    assert re.fullmatch(r"error: [^\n]+\n", outcome.stderr)
    assert message in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [(["result", "nothing", "--json"], 1, "UnknownJob"), (["submit", "--json"], 2, "UsageError")],
)
def test_an_error_is_json_where_json_was_asked(run: Run, arguments: list[str], code: int, kind: str) -> None:
    """On stderr, so that stdout holds answers only."""
    outcome = run(*arguments)
    assert (outcome.exit_code, outcome.stdout) == (code, "")
    error = json.loads(outcome.stderr)["error"]
    assert error["type"] == kind
    assert error["message"]


def test_a_refusal_names_the_job_and_its_fate(run: Run, redis_url: str) -> None:
    """In words, and as fields of the JSON; the same id submits it once there is room."""
    with Redis.from_url(redis_url) as redis:
        redis.config_set("maxmemory", 1)
        outcome = run("submit", "_base", "hello")
        document = json.loads(run("submit", "_base", "hello", "--job-id", "mine", "--json").stderr)
        redis.config_set("maxmemory", 0)
    assert 1 == outcome.exit_code
    assert re.search(r"maxmemory.*job 0\.j[0-9a-f-]+ was not queued", " ".join(outcome.stderr.split()))
    assert ("0.mine", "not queued") == (document["error"]["job_id"], document["error"]["fate"]), document
    assert "0.mine\n" == run("submit", "_base", "hello", "--job-id", "0.mine").stdout


def test_a_hostile_text_cannot_drive_the_terminal(run: Run, threaded_worker: None) -> None:
    """Escape sequences in an answer are shown as replacement characters; --json keeps them, escaped."""
    outcome = run("submit", "_base", "\x1b[2J\x07boo", "--wait")
    assert "\x1b" not in outcome.stdout
    assert "boo" in outcome.stdout
    assert _json(run("submit", "_base", "\x1b[2J", "--wait", "--json"))["text"].endswith("\x1b[2J")


def _environment(redis_url: str, pool_name: str) -> dict[str, str]:
    return {**os.environ, "LORAPOOL_REDIS_URL": redis_url, "LORAPOOL_POOL": pool_name}


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "lorapool.producer.cli", *arguments]


def test_the_real_program_answers(redis_url: str, pool_name: str, threaded_worker: None) -> None:
    """As a process of its own: text, exit code and error."""
    env = _environment(redis_url, pool_name)
    good = subprocess.run(
        _command("submit", "_base", "hello", "--stream"),
        env=env,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert good.stdout == "_base heard: hello\n"
    env["LORAPOOL_REDIS_URL"] = "redis://me:hunter2@127.0.0.1:1"
    bad = subprocess.run(_command("stats"), env=env, capture_output=True, text=True, timeout=30, check=False)
    assert (bad.returncode, bad.stdout) == (1, "")
    assert re.fullmatch(r"error: Redis at redis://me:\*\*\*@127\.0\.0\.1:1 does not answer [^\n]+\n", bad.stderr)


def test_ctrl_c_ends_the_wait_and_not_the_job(redis_url: str, pool_name: str) -> None:
    """Exit code 130, no traceback, and how to get the answer later."""
    command = _command("submit", "_base", "hello", "--wait", "--job-id", "mine")
    process = subprocess.Popen(command, env=_environment(redis_url, pool_name), stderr=subprocess.PIPE, text=True)
    _until_waiting(redis_url)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert "lorapool result 0.mine" in stderr


def _until_waiting(redis_url: str) -> None:
    """Until a client blocks on its inbox."""
    give_up_at = time.monotonic() + 20
    with Redis.from_url(redis_url) as redis:
        while time.monotonic() < give_up_at:
            if any(client["cmd"] == "xread" for client in redis.client_list()):
                return
            time.sleep(0.02)
    raise AssertionError("nobody waits")


def test_importing_the_client_brings_no_torch_and_no_command_line() -> None:
    """An agent's import: neither torch nor transformers nor typer."""
    program = "import sys, lorapool.producer, lorapool.producer.sync; print(*sys.modules)"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert not {"torch", "transformers", "peft", "typer", "structlog"} & set(process.stdout.split())
