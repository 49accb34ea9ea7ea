"""The registry cases of AOS's own tests, under their names, and what a catalog in Redis adds to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorapool.producer import AdapterConflict, AdapterUnavailable, InvalidRequest
from lorapool.producer.aos import IgnoredSetting, LoRAxAdapterRegistry, LoRAxConfig, LoRAxServer
from tests.aos.conftest import MakeAdapter, eventually, text_of


@pytest.fixture
def registry(redis_url: str) -> LoRAxAdapterRegistry:
    """Without any server, as in AOS."""
    return LoRAxAdapterRegistry(LoRAxConfig(base_model="fake", redis_url=redis_url))


def test_register_adapter(registry: LoRAxAdapterRegistry, make_adapter: MakeAdapter) -> None:
    """What is registered comes back: id, role, where it lies, not loaded, never used, not yet validated."""
    folder = make_adapter("ceo")
    adapter = registry.register_adapter("ceo_adapter", "CEO", str(folder))
    assert ("ceo_adapter", "CEO", str(folder), "1.0.0") == (
        adapter.adapter_id,
        adapter.agent_role,
        adapter.adapter_path,
        adapter.version,
    )
    assert (False, 0, 0, None) == (adapter.loaded, adapter.load_count, adapter.inference_count, adapter.last_used)
    assert "pending" == adapter.status


def test_get_adapter(registry: LoRAxAdapterRegistry, make_adapter: MakeAdapter) -> None:
    """By id; None for one that is not there."""
    registry.register_adapter("test_adapter", "TEST", str(make_adapter("test")))
    adapter = registry.get_adapter("test_adapter")
    assert adapter is not None
    assert "test_adapter" == adapter.adapter_id
    assert registry.get_adapter("nobody") is None
    assert registry.get_adapter("no such name") is None


def test_get_adapter_for_agent(registry: LoRAxAdapterRegistry, make_adapter: MakeAdapter) -> None:
    """By role; None for one without adapter."""
    registry.register_adapter("ceo_adapter", "CEO", str(make_adapter("ceo")))
    adapter = registry.get_adapter_for_agent("CEO")
    assert adapter is not None
    assert ("CEO", "ceo_adapter") == (adapter.agent_role, adapter.adapter_id)
    assert registry.get_adapter_for_agent("CFO") is None


def test_list_adapters(registry: LoRAxAdapterRegistry, make_adapter: MakeAdapter) -> None:
    """All of them, with the roles as they were written."""
    registry.register_adapter("ceo_adapter", "CEO", str(make_adapter("ceo")))
    registry.register_adapter("cfo_adapter", "CFO", str(make_adapter("cfo")))
    listed = {info.adapter_id: info.agent_role for info in registry.list_adapters()}
    assert {"ceo_adapter": "CEO", "cfo_adapter": "CFO"} == listed
    assert {"ceo": "ceo_adapter", "cfo": "cfo_adapter"} == registry.agent_to_adapter
    assert set(listed) == set(registry.adapters)


async def test_update_usage_stats(server: LoRAxServer, make_adapter: MakeAdapter) -> None:
    """What counts usage is use: one inference, one load; writing it by hand has no effect and says so."""
    server.registry.register_adapter("test_adapter", "TEST", str(make_adapter("test")))
    await server.inference("test_adapter", "hello", max_new_tokens=2)

    def seen() -> tuple[object, ...]:
        info = server.registry.get_adapter("test_adapter")
        return info.loaded, info.load_count, info.inference_count

    assert (True, 1, 1) == await eventually((True, 1, 1), seen)
    with pytest.warns(IgnoredSetting, match="workers count"):
        server.registry.update_usage_stats("test_adapter", loaded=True)
    assert (True, 1, 1) == seen()
    assert ["test_adapter"] == [info.adapter_id for info in server.registry.get_loaded_adapters()]


async def test_most_used_come_first(server: LoRAxServer, make_adapter: MakeAdapter) -> None:
    """By successful inferences, at most as many as asked for."""
    for number, name in enumerate(("a", "b", "c")):
        server.registry.register_adapter(name, name, str(make_adapter(name)))
        for _ in range(number):
            await server.inference(name, "hello", max_new_tokens=1)
    assert ["c", "b"] == [info.adapter_id for info in server.registry.get_most_used_adapters(limit=2)]


def test_metadata_of_any_kind_comes_back(registry: LoRAxAdapterRegistry, make_adapter: MakeAdapter) -> None:
    """Numbers stay numbers; what JSON cannot hold is refused; later metadata for the same version is not."""
    folder, metadata = str(make_adapter()), {"domain": "strategy", "accuracy": 0.9, "tags": ["a"], "digits": "12"}
    assert metadata == registry.register_adapter("ceo", "CEO", folder, metadata=metadata).metadata
    with pytest.raises(InvalidRequest, match="what JSON can hold"):
        registry.register_adapter("ceo", "CEO", folder, metadata={"when": object()})
    with pytest.raises(InvalidRequest, match="at most 65,536"):
        registry.register_adapter("ceo", "CEO", folder, metadata={"notes": "x" * 70_000})
    with pytest.warns(IgnoredSetting, match="stays as first registered"):
        registry.register_adapter("ceo", "CEO", folder, metadata={"domain": "sales"})


def test_a_version_is_immutable(registry: LoRAxAdapterRegistry, make_adapter: MakeAdapter) -> None:
    """The same version with other content is refused, and what to do is said."""
    registry.register_adapter("ceo", "CEO", str(make_adapter()))
    with pytest.raises(AdapterConflict, match="register another version"):
        registry.register_adapter("ceo", "CEO", str(make_adapter(salt="new")))


def test_relative_paths_lie_below_the_base_path(
    redis_url: str, make_adapter: MakeAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As written where that is a folder here, else below adapter_base_path; other sources become their URIs."""
    make_adapter("ceo")
    config = LoRAxConfig(base_model="fake", redis_url=redis_url, adapter_base_path=str(tmp_path))
    assert str(tmp_path / "ceo") == LoRAxAdapterRegistry(config).register_adapter("ceo", "CEO", "ceo").adapter_path
    monkeypatch.chdir(tmp_path.parent)
    written = f"{tmp_path.name}/ceo"
    assert str(tmp_path / "ceo") == LoRAxAdapterRegistry(config).register_adapter("ceo", "CEO", written).adapter_path
    config = LoRAxConfig(redis_url=redis_url, adapter_source="s3", adapter_base_path="bucket/adapters")
    with pytest.raises((InvalidRequest, AdapterUnavailable), match="s3://bucket/adapters/ceo"):
        LoRAxAdapterRegistry(config).register_adapter("ceo", "CEO", "ceo")


async def test_unregister_adapter(server: LoRAxServer, make_adapter: MakeAdapter) -> None:
    """It is gone with its roles and all its versions; the same content may come back."""
    folder = str(make_adapter())
    server.registry.register_adapter("shared", "CEO", folder)
    server.registry.register_adapter("shared", "CFO", str(make_adapter(salt="2")), version="2.0.0")
    assert server.registry.unregister_adapter("shared")
    assert ([], {}) == (server.registry.list_adapters(), server.registry.agent_to_adapter)
    assert server.registry.get_adapter("shared") is None
    assert not server.registry.unregister_adapter("shared")
    with pytest.raises(ValueError, match="CEO"):
        await server.inference_for_agent("CEO", "hello")
    assert "ready" == server.registry.register_adapter("shared", "CEO", folder).status


async def test_one_agent_has_an_adapter_for_each_purpose(server: LoRAxServer, make_adapter: MakeAdapter) -> None:
    """Chosen with each request; counted under the one agent."""
    executive, leadership = make_adapter("executive"), make_adapter("leadership")
    server.registry.register_adapter("executive", "CEO", str(executive))
    server.registry.register_adapter("leadership", "CEO.leadership", str(leadership))
    own = await server.inference_for_agent("CEO", "hello", max_new_tokens=3)
    led = await server.inference_for_agent("ceo", "hello", purpose="Leadership", max_new_tokens=3)
    expected = [text_of("hello", folder, 3) for folder in (executive, leadership)]
    assert expected == [own["generated_text"], led["generated_text"]]
    stats = server.get_agent_stats("CEO")
    assert stats is not None
    assert (1, 2) == (stats["inference_count"], stats["role_stats"]["succeeded"])
    with pytest.raises(ValueError, match="'CEO' for 'finance'"):
        await server.inference_for_agent("CEO", "hello", purpose="finance")
