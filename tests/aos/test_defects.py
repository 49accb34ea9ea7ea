"""The twenty defects of AOS's LoRAx, each as what must be true instead. Real server, real worker, fake model."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from lorapool.producer import CheckpointError, Client, InvalidRequest, JobFailed, NoWorker, PoolMismatch
from lorapool.producer.aos import LoRAxServer, MLPipelineManager, NotRunning
from tests.aos.conftest import MakeAdapter, Manage, Serve, eventually, text_of
from tests.fleet import ROOT, WorkerProcess, fake_worker, until

pytestmark = pytest.mark.filterwarnings("ignore::lorapool.producer.aos.IgnoredSetting")


def register(pipeline: MLPipelineManager, make_adapter: MakeAdapter, *roles: str) -> dict[str, Path]:
    """An adapter for each role; role → folder."""
    folders = {role: make_adapter(role.lower()) for role in roles}
    for role, folder in folders.items():
        assert pipeline.register_lorax_adapter(role, str(folder)), pipeline.last_error
    return folders


async def elsewhere(url: str, role: str) -> dict[str, Any]:
    """What a facade in another process got from that role, and its statistics of it."""
    command = [sys.executable, "-m", "tests.aos.another_process", url, role]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(output)


async def test_defect_01_no_lru_eviction(pipeline: MLPipelineManager, make_adapter: MakeAdapter) -> None:
    """Five adapters through a cache of two leave two loaded, the latest used; the other three were evicted."""
    roles = ("a", "b", "c", "d", "e")
    register(pipeline, make_adapter, *roles)
    for role in roles:
        await pipeline.lorax_inference(role, "hello", max_new_tokens=2)

    def seen() -> tuple[object, ...]:
        status = pipeline.get_lorax_status()
        return status["loaded_adapter_ids"], status["loaded_adapters"], status["workers"][0]["evictions"]

    assert (["d", "e"], 2, 3) == await eventually((["d", "e"], 2, 3), seen)


async def test_defect_02_load_count_wrong(pipeline: MLPipelineManager, make_adapter: MakeAdapter) -> None:
    """51 inferences, twenty of them at once, on an adapter that stays loaded are one load."""
    register(pipeline, make_adapter, "CEO")
    for number in range(31):
        await pipeline.lorax_inference("CEO", f"{number}", max_new_tokens=1)
    await pipeline.lorax_batch_inference(
        [{"agent_role": "CEO", "prompt": "x", "params": {"max_new_tokens": 1}} for _ in range(20)]
    )

    def seen() -> tuple[int, int]:
        stats = pipeline.get_lorax_adapter_stats("CEO")
        assert stats is not None
        return stats["inference_count"], stats["load_count"]

    assert (51, 1) == await eventually((51, 1), seen)


async def test_defect_03_unknown_role_shrinks_batch(pipeline: MLPipelineManager, make_adapter: MakeAdapter) -> None:
    """Three in, three out: the unknown role's place holds its error, the others their own adapter's answers."""
    folders = register(pipeline, make_adapter, "CEO", "CFO")
    roles = ("CEO", "NOBODY", "CFO")
    results = await pipeline.lorax_batch_inference(
        [{"agent_role": role, "prompt": f"for {role}", "params": {"max_new_tokens": 3}} for role in roles]
    )
    assert list(roles) == [result["agent_role"] for result in results]
    assert text_of("for CEO", folders["CEO"], 3) == results[0]["generated_text"]
    assert "UnknownAdapter" == results[1]["error_type"]
    assert text_of("for CFO", folders["CFO"], 3) == results[2]["generated_text"]


async def test_defect_04_sequential_batch(redis_url: str, manage: Manage, make_adapter: MakeAdapter) -> None:
    """A batch of five roles and the base model runs together: steps of the worker hold rows of all six."""
    roles = ("a", "b", "c", "d", "e")
    with fake_worker(redis_url, model={"step_s": 0.02}, slots=5):
        pipeline = manage()
        assert await pipeline.start_lorax_server()
        register(pipeline, make_adapter, *roles)
        requests = [{"agent_role": role, "prompt": "hello", "params": {"max_new_tokens": 40}} for role in roles]
        requests.append({"agent_role": "a", "prompt": "x", "params": {"max_new_tokens": 40, "adapter": "_base"}})
        await pipeline.lorax_batch_inference(requests)
        async with Client(redis_url) as client:

            async def mixed() -> bool:
                [beat] = await client.workers()
                return int(beat.get("mixed_steps_5", 0)) > 0

            assert await until(mixed)


async def test_defect_05_limits_ignored(redis_url: str, manage: Manage, make_adapter: MakeAdapter) -> None:
    """With two requests allowed at a time, the pool never holds more than two of eight, and all are answered."""
    held: list[int] = []
    with fake_worker(redis_url, model={"step_s": 0.01}):
        pipeline = manage(lorax_max_concurrent_requests=2)
        assert await pipeline.start_lorax_server()
        register(pipeline, make_adapter, "CEO")
        asked = asyncio.create_task(
            pipeline.lorax_batch_inference(
                [{"agent_role": "CEO", "prompt": f"{n}", "params": {"max_new_tokens": 8}} for n in range(8)]
            )
        )
        while not asked.done():
            status = await pipeline.lorax_status()
            held.append(status["active_requests"] + status["queue_depth"])
        assert 8 == sum(result["success"] for result in await asked)
    assert 2 == max(held)
    assert 2 == pipeline.get_lorax_status()["config"]["max_concurrent_requests"]


IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "max_new_tokens": {"max_new_tokens": -5},
    "temperature": {"temperature": 99},
    "top_p": {"top_p": 0},
    "beams": {"beams": 4},
    "did you mean 'max_new_tokens'": {"max_tokens": 4},
    "timeout": {"timeout": -1},
    "compose": {"adapter": ["finance", "leadership"]},
}


async def test_defect_06_kwargs_dropped(pipeline: MLPipelineManager, make_adapter: MakeAdapter) -> None:
    """A parameter that is unknown or out of range is refused by name; no job is made of it."""
    register(pipeline, make_adapter, "CEO")
    for named, arguments in IMPOSSIBLE.items():
        result = await pipeline.lorax_inference("CEO", "hello", **arguments)
        assert ("InvalidRequest", False) == (result["error_type"], result["success"])
        assert named in result["error"]
    assert 0 == pipeline.get_lorax_adapter_stats("CEO")["adapter_stats"].get("submitted", 0)


async def test_defect_06_known_kwargs_act(pipeline: MLPipelineManager, make_adapter: MakeAdapter) -> None:
    """What is known reaches the worker: the number of tokens, and the job id that makes a repeat the same job."""
    register(pipeline, make_adapter, "CEO")
    ask = {"max_new_tokens": 3, "seed": 7, "top_k": 5, "stop": "never", "job_id": "mine"}
    first, again = [await pipeline.lorax_inference("CEO", "hello", **ask) for _ in range(2)]
    assert (3, "length", "0.mine") == (first["tokens_generated"], first["finish_reason"], first["request_id"])
    assert first["request_id"] == again["request_id"]


async def test_defect_07_failures_uncounted(manage: Manage, worker: WorkerProcess, make_adapter: MakeAdapter) -> None:
    """Total is successes and failures: of a worker, an unknown role, a bad parameter, a start to come."""
    pipeline = manage()
    await pipeline.lorax_inference("CEO", "too early")
    assert await pipeline.start_lorax_server()
    register(pipeline, make_adapter, "CEO")
    await pipeline.lorax_inference("CEO", "fine", max_new_tokens=1)
    too_long = await pipeline.lorax_inference("CEO", "x" * 5000)
    assert "PromptTooLong" == too_long["error_type"]
    await pipeline.lorax_inference("NOBODY", "hello")
    await pipeline.lorax_batch_inference([{"agent_role": "CEO", "prompt": "x", "params": {"top_p": 9}}, {"what": "?"}])
    for facade in (pipeline, manage()):
        metrics = facade.get_lorax_status()["metrics"]
        assert (6, 1, 5, 4) == tuple(
            metrics[f"{name}_requests"] for name in ("total", "successful", "failed", "refused")
        )


async def test_defect_08_stop_does_not_drain(redis_url: str, manage: Manage, make_adapter: MakeAdapter) -> None:
    """Stopping waits for what is under way, which is answered, and lets nothing new in."""
    with fake_worker(redis_url, model={"step_s": 0.02}):
        pipeline = manage()
        assert await pipeline.start_lorax_server()
        folders = register(pipeline, make_adapter, "CEO")
        running = asyncio.create_task(pipeline.lorax_inference("CEO", "slow", max_new_tokens=50))
        await until(lambda: pipeline.get_lorax_status()["active_requests"])
        stopping = asyncio.create_task(pipeline.stop_lorax_server())
        await asyncio.sleep(0)
        refused = await pipeline.lorax_inference("CEO", "too late")
        assert "NotRunning" == refused["error_type"]
        assert await stopping
        assert text_of("slow", folders["CEO"], 50) == (await running)["generated_text"]


async def test_defect_08_a_drain_has_an_end(redis_url: str, serve: Serve, make_adapter: MakeAdapter) -> None:
    """What outlasts the drain is cancelled and told so; stop says that it had to."""
    with fake_worker(redis_url, model={"step_s": 0.02}):
        server = serve(drain_timeout_s=0.2)
        assert await server.start()
        server.registry.register_adapter("ceo", "CEO", str(make_adapter()))
        running = asyncio.create_task(
            server.batch_inference([{"agent_role": "CEO", "prompt": "endless", "params": {"max_new_tokens": 3000}}])
        )
        await until(lambda: server.get_status()["active_requests"])
        assert not await server.stop()
        assert "1 requests were cancelled" in str(server.last_error)
        assert ["JobCancelled"] == [result["error_type"] for result in await running]


async def test_defect_09_state_lost_and_unshared(
    redis_url: str, pipeline: MLPipelineManager, make_adapter: MakeAdapter
) -> None:
    """Another process sees the adapter and its counters, adds to them, and so does the next facade of this one."""
    folders = register(pipeline, make_adapter, "CEO")
    await pipeline.lorax_inference("CEO", "hello", max_new_tokens=2)
    other = await elsewhere(redis_url, "CEO")
    assert text_of("from elsewhere", folders["CEO"], 3) == other["result"]["generated_text"]
    assert 2 == other["stats"]["inference_count"]
    await pipeline.stop_lorax_server()
    stats = pipeline.get_lorax_adapter_stats("CEO")
    assert stats is not None
    assert (2, other["stats"]["created_at"]) == (stats["inference_count"], stats["created_at"])


async def test_defect_10_re_register_wipes_stats(pipeline: MLPipelineManager, make_adapter: MakeAdapter) -> None:
    """The same again keeps its counters; a new version takes the role, and the old one can still be asked."""
    [old] = register(pipeline, make_adapter, "CEO").values()
    new = make_adapter("ceo", salt="-2")
    await pipeline.lorax_inference("CEO", "hello", max_new_tokens=1)
    assert pipeline.register_lorax_adapter("CEO", str(old))
    assert pipeline.lorax_server is not None
    registry = pipeline.lorax_server.registry
    assert [1] == [info.inference_count for info in registry.list_adapters()]
    assert not pipeline.register_lorax_adapter("CEO", str(new))
    assert "register another version" in str(pipeline.last_error)
    assert pipeline.register_lorax_adapter("CEO", str(new), version="1.1.0")
    result = await pipeline.lorax_inference("CEO", "hello", max_new_tokens=4)
    assert ("1.1.0", text_of("hello", new, 4)) == (result["adapter_version"], result["generated_text"])
    assert {"CEO@1.0.0": ("", 1), "CEO@1.1.0": ("CEO", 1)} == {
        info.ref: (info.agent_role, info.inference_count) for info in registry.list_adapters()
    }
    pinned = await pipeline.lorax_inference("CEO", "hello", max_new_tokens=4, adapter="CEO@1.0.0")
    assert text_of("hello", old, 4) == pinned["generated_text"]
    assert pipeline.register_lorax_adapter("CEO", str(old))
    assert "1.0.0" == registry.get_adapter_for_agent("CEO").version


async def test_defect_11_shared_adapter_mislabels(pipeline: MLPipelineManager, make_adapter: MakeAdapter) -> None:
    """Two roles on one adapter keep their names and their own counters; the adapter's count both."""
    folder = make_adapter("leadership")
    for role in ("CEO", "CFO"):
        assert pipeline.register_lorax_adapter(role, str(folder), adapter_id="leadership")
    results = [await pipeline.lorax_inference(role, "hello", max_new_tokens=1) for role in ("CEO", "CFO", "CFO")]
    assert ["CEO", "CFO", "CFO"] == [result["agent_role"] for result in results]
    for role, own in (("CEO", 1), ("CFO", 2)):
        stats = pipeline.get_lorax_adapter_stats(role)
        assert stats is not None
        assert (role, 3, own) == (stats["agent_role"], stats["inference_count"], stats["role_stats"]["succeeded"])
        assert ("ceo", "cfo") == stats["agent_roles"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: [file.unlink() for file in folder.iterdir()], "has no adapter_config.json"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "has no adapter_model.safetensors"),
        (lambda folder: (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin"), "a pickle"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "not JSON"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"junk"), "not a safetensors file"),
    ],
)
def test_defect_12_missing_files_accepted(
    manage: Manage, make_adapter: MakeAdapter, spoil: Callable[[Path], object], reason: str
) -> None:
    """A folder that no worker could serve is refused with what it lacks, and nothing is registered."""
    folder = make_adapter()
    spoil(folder)
    pipeline = manage()
    assert not pipeline.register_lorax_adapter("CEO", str(folder))
    assert isinstance(pipeline.last_error, CheckpointError)
    assert reason in str(pipeline.last_error)
    assert 0 == pipeline.get_lorax_status()["total_adapters"]


def test_defect_13_adapter_of_another_base_model(manage: Manage, make_adapter: MakeAdapter) -> None:
    """An adapter for Llama-2 is refused by a server for Llama-3.1, one for 70B by one for 8B; names are shown."""
    pipeline = manage(lorax_base_model="meta-llama/Llama-3.1-8B-Instruct")
    for other in ("meta-llama/Llama-2-7b-hf", "meta-llama/Llama-3.1-70B-Instruct"):
        folder = make_adapter("ceo", salt=other[-3:], base_model=other)
        assert not pipeline.register_lorax_adapter("CEO", str(folder))
        assert isinstance(pipeline.last_error, CheckpointError)
        assert other in str(pipeline.last_error)
        assert "Llama-3.1-8B" in str(pipeline.last_error)
    same = make_adapter("ceo", base_model="meta-llama/Llama-3.1-8B-Instruct")
    assert pipeline.register_lorax_adapter("CEO", str(same)), pipeline.last_error


async def test_defect_13_server_of_another_base_model(redis_url: str, manage: Manage) -> None:
    """A facade configured for 8B does not start on a pool of 70B; it says both."""
    served = "Llama-3.3-70B-Instruct"
    with fake_worker(redis_url, model={"base_model": served}):
        right = manage(lorax_base_model=f"meta-llama/{served}")
        assert await right.start_lorax_server()
        wrong = manage(lorax_base_model="meta-llama/Llama-3.1-8B-Instruct")
        assert not await wrong.start_lorax_server()
    assert isinstance(wrong.last_error, PoolMismatch)
    assert "8B" in str(wrong.last_error)
    assert "70B" in str(wrong.last_error)


async def test_defect_14_errors_look_like_success(pipeline: MLPipelineManager, make_adapter: MakeAdapter) -> None:
    """A coordinator that reads answers as AOS's does cannot take an error for one, nor touch two by changing one."""
    register(pipeline, make_adapter, "CEO")
    requests = [{"agent_role": role, "prompt": "hello", "params": {"max_new_tokens": 1}} for role in ("X", "CEO", "Y")]
    results = await pipeline.lorax_batch_inference(requests)
    assert [False, True, False] == [result["success"] for result in results]
    assert [True, False, True] == ["error" in result for result in results]
    assert [False, True, False] == ["generated_text" in result for result in results]
    with pytest.raises(KeyError, match="no adapter registered for agent 'X'"):
        _ = results[0]["generated_text"]
    results[0]["seen"] = True
    assert "seen" not in results[2]
    assert json.loads(json.dumps(results[0]))["error_type"] == "UnknownAdapter"


async def test_defect_15_stub_returned_on_failure(redis_url: str, manage: Manage, make_adapter: MakeAdapter) -> None:
    """No worker is no start; a worker that dies leaves an error when the time is over, not a text."""
    pipeline = manage(lorax_start_timeout_s=0.3)
    register(pipeline, make_adapter, "CEO")
    assert not await pipeline.start_lorax_server()
    assert isinstance(pipeline.last_error, NoWorker)
    assert "NotRunning" == (await pipeline.lorax_inference("CEO", "hello"))["error_type"]
    with fake_worker(redis_url) as worker:
        pipeline = manage()
        assert await pipeline.start_lorax_server(), pipeline.last_error

        async def validated() -> bool:
            return "generated_text" in await pipeline.lorax_inference("CEO", "hello", max_new_tokens=1)

        await until(validated)
        worker.signal(signal.SIGKILL)
        worker.wait()
        result = await pipeline.lorax_inference("CEO", "hello", timeout=0.3)
    assert ("JobExpired", False) == (result["error_type"], "generated_text" in result)


async def test_defect_16_adapters_loaded_stale(
    worker: WorkerProcess, pipeline: MLPipelineManager, make_adapter: MakeAdapter
) -> None:
    """What is loaded follows the workers: two after the first two, none when they are gone."""
    register(pipeline, make_adapter, "a", "b")
    await pipeline.lorax_inference("a", "hello", max_new_tokens=1)
    await pipeline.lorax_inference("b", "hello", max_new_tokens=1)

    def seen() -> tuple[object, ...]:
        status = pipeline.get_lorax_status()
        return status["metrics"]["adapters_loaded"], status["loaded_adapters"], status["running"]

    assert (2, 2, True) == await eventually((2, 2, True), seen)
    assert 0 == worker.stop()
    assert (0, 0, False) == await eventually((0, 0, False), seen)
    stats = pipeline.get_lorax_adapter_stats("a")
    assert stats is not None
    assert (False, 1) == (stats["loaded"], stats["load_count"])


async def test_defect_17_tokens_not_counted(pipeline: MLPipelineManager, make_adapter: MakeAdapter) -> None:
    """The tokens told are those made: of 64 allowed, the six that a nearly full context had room for."""
    register(pipeline, make_adapter, "CEO")
    result = await pipeline.lorax_inference("CEO", "x" * 4090, max_new_tokens=64)
    assert (6, 4090, "length") == (result["tokens_generated"], result["prompt_tokens"], result["finish_reason"])
    assert 6 == len(result["generated_text"].split())
    assert 6 == pipeline.get_lorax_status()["metrics"]["tokens_generated"]


async def test_defect_18_role_case_mismatch(pipeline: MLPipelineManager, make_adapter: MakeAdapter) -> None:
    """CEO, ceo and Ceo are one role, whichever registered or asks; registering it again makes no second adapter."""
    [folder] = register(pipeline, make_adapter, "CEO").values()
    results = [await pipeline.lorax_inference(role, "hello", max_new_tokens=2) for role in ("ceo", "Ceo", "CEO")]
    assert [text_of("hello", folder, 2)] * 3 == [result["generated_text"] for result in results]
    assert pipeline.register_lorax_adapter("ceo", str(folder))
    assert 1 == pipeline.get_lorax_status()["total_adapters"]
    stats = pipeline.get_lorax_adapter_stats("cEO")
    assert stats is not None
    assert (3, 3) == (stats["inference_count"], stats["role_stats"]["succeeded"])


async def test_defect_19_adapter_swapped_across_await(
    redis_url: str, redis: Redis, manage: Manage, make_adapter: MakeAdapter
) -> None:
    """Two requests of one agent at once get the adapter each asked for, also if its role moves while they run."""
    with fake_worker(redis_url, model={"step_s": 0.02}):
        pipeline = manage()
        assert await pipeline.start_lorax_server()
        folders = register(pipeline, make_adapter, "CFO", "finance", "leadership")
        arguments: list[dict[str, Any]] = [{"adapter": "finance"}, {"adapter": "leadership"}, {}]
        asked = [
            asyncio.create_task(pipeline.lorax_inference("CFO", "hello", max_new_tokens=20, **each))
            for each in arguments
        ]
        await until(lambda: pipeline.get_lorax_status()["active_requests"] == 3)
        assert pipeline.register_lorax_adapter("CFO", str(folders["leadership"]), adapter_id="leadership")
        results = await asyncio.gather(*asked)
        expected = [text_of("hello", folders[name], 20) for name in ("finance", "leadership", "CFO")]
        assert expected == [result["generated_text"] for result in results]
        later = await pipeline.lorax_inference("CFO", "hello", max_new_tokens=1)
        assert "leadership" == later["adapter_id"]


async def test_defect_20_request_id_collides(
    redis_url: str, pipeline: MLPipelineManager, make_adapter: MakeAdapter
) -> None:
    """Ids of two processes differ, and each finds its job from anywhere."""
    register(pipeline, make_adapter, "CEO")
    mine = await pipeline.lorax_inference("CEO", "hello", max_new_tokens=1)
    other = (await elsewhere(redis_url, "CEO"))["result"]
    assert mine["request_id"] != other["request_id"]
    async with Client(redis_url) as client:
        result = await client.get(other["request_id"]).result(5)
    assert other["generated_text"] == result.text


async def test_the_server_raises_as_aos_did(server: LoRAxServer, serve: Serve, make_adapter: MakeAdapter) -> None:
    """Not started is a RuntimeError, an unknown id a ValueError; a failed job an error of its own."""
    with pytest.raises(NotRunning) as not_running:
        await serve().inference("ceo", "hello")
    assert isinstance(not_running.value, RuntimeError)
    with pytest.raises(ValueError, match="nobody"):
        await server.inference("nobody", "hello")
    server.registry.register_adapter("ceo", "CEO", str(make_adapter()))
    with pytest.raises(InvalidRequest, match="temperature"):
        await server.inference("ceo", "hello", temperature=-1)
    with pytest.raises(JobFailed, match="PromptTooLong"):
        await server.inference_for_agent("CEO", "x" * 5000)
