"""LoRAxAdapterRegistry: AOS's view of the pool's catalog: adapter versions, and which role means which.

Nothing is kept here: any process sees what another registered, at once and after a restart. Roles are aliases,
case-folded; several may mean one adapter. Versions are immutable, so that registering again resets no counter.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from lorapool.producer.aos.adapter_info import AdapterInfo, decoded, encoded
from lorapool.producer.aos.attachment import Attachment
from lorapool.producer.aos.base_model import is_path, same_name
from lorapool.producer.aos.config import LoRAxConfig
from lorapool.producer.aos.errors import IgnoredSetting
from lorapool.producer.client.client import Client
from lorapool.producer.client.folder import as_uri, expanded, local_folder
from lorapool.producer.client.slices import Slices
from lorapool.shared.catalog.catalog import AdapterRecord
from lorapool.shared.digest import read_config
from lorapool.shared.errors import AdapterRefused, CheckpointError, InvalidRequest, UnknownAdapter
from lorapool.shared.job import BASE_REF, check_name


class LoRAxAdapterRegistry:
    """Blocking, as in AOS; each call is a few round trips. ``attachment`` is a server's, to share its connection."""

    def __init__(self, config: LoRAxConfig | None = None, attachment: Attachment | None = None) -> None:
        self._config = config or LoRAxConfig()
        self._attachment = attachment or Attachment(self._config.redis_url, self._config.pool)
        self._unvalidated: dict[str, set[str]] = {}  # ref → roles, registered while no worker was there to validate

    def register_adapter(
        self,
        adapter_id: str,
        agent_role: str,
        adapter_path: str,
        version: str = "1.0.0",
        metadata: dict[str, Any] | None = None,
    ) -> AdapterInfo:
        """Add that version and have the role mean it.

        With a live worker it waits for that worker's verdict; without, the version is pending until there is one. The
        same content again is the same version, with its counters. Raises CheckpointError (missing files, no
        safetensors, another base model), AdapterConflict (that version has other content: choose another),
        AdapterRefused (with the worker's reason), InvalidRequest, RedisUnreachable.
        """
        return self._attachment.run(
            lambda client: self.register(client, adapter_id, agent_role, adapter_path, version, metadata)
        )

    def get_adapter(self, adapter_id: str) -> AdapterInfo | None:
        """The newest version of that id (or that exact ``id@version``); None if there is none."""
        return self._attachment.run(lambda client: self.find(client, adapter_id=adapter_id))

    def get_adapter_for_agent(self, agent_role: str) -> AdapterInfo | None:
        """What that role means; None if nothing."""
        return self._attachment.run(lambda client: self.find(client, role=agent_role))

    def list_adapters(self) -> list[AdapterInfo]:
        """Every version, by ref."""
        return self._attachment.run(self.all)

    def get_loaded_adapters(self) -> list[AdapterInfo]:
        """Those in a slot of some live worker."""
        return [info for info in self.list_adapters() if info.loaded]

    def get_most_used_adapters(self, limit: int = 10) -> list[AdapterInfo]:
        """By jobs succeeded, most first."""
        return sorted(self.list_adapters(), key=lambda info: info.inference_count, reverse=True)[:limit]

    def update_usage_stats(self, adapter_id: str, loaded: bool | None = None) -> None:
        """Nothing to do: workers count what happens. Warns (IgnoredSetting)."""
        message = f"update_usage_stats({adapter_id!r}, loaded={loaded!r}) has no effect: workers count what happens"
        warnings.warn(message, IgnoredSetting, stacklevel=2)

    def unregister_adapter(self, adapter_id: str) -> bool:
        """Take every version of that id out of service, with the roles that mean it; False if there is none.

        Raises AdapterInUse while jobs of it wait or run.
        """
        return self._attachment.run(lambda client: _removed(client, adapter_id))

    @property
    def adapters(self) -> dict[str, AdapterInfo]:
        """The newest version of each id."""
        newest = sorted(self.list_adapters(), key=lambda info: info.created_at)
        return {info.adapter_id: info for info in newest}

    @property
    def agent_to_adapter(self) -> dict[str, str]:
        """Role, case-folded → adapter id."""
        return self._attachment.run(_roles)

    # -- the same for code that holds a client

    async def register(
        self,
        client: Client,
        adapter_id: str | None,
        agent_role: str,
        adapter_path: str,
        version: str = "1.0.0",
        metadata: Mapping[str, Any] | None = None,
    ) -> AdapterInfo:
        """As ``register_adapter``; without an id it is the role's own."""
        role = check_name("agent_role", agent_role)
        uri = self._uri(adapter_path)
        await asyncio.to_thread(self._check_base_model, uri)
        adapter_id = adapter_id or await _own_id(client, role)
        record = await client.adapters.register(
            adapter_id,
            uri,
            version=version,
            aliases=[role],
            metadata=encoded(metadata, role),
            wait=bool(await client.workers()),
            timeout=self._config.start_timeout_s,
        )
        if record.status == "pending":
            self._unvalidated.setdefault(record.ref, set()).add(role)
        await _point(client, role, record)
        if metadata is not None and decoded(record.metadata) != dict(metadata):
            message = f"metadata of {record.ref} stays as first registered; a new version may bring its own"
            warnings.warn(message, IgnoredSetting, stacklevel=2)
        return await _info(client, await client.adapters.get(record.ref), role)

    async def find(
        self, client: Client, *, adapter_id: str | None = None, role: str | None = None
    ) -> AdapterInfo | None:
        """By id or by role."""
        name = role if adapter_id is None else adapter_id
        try:
            record = await client.adapters.get(str(name))
        except (UnknownAdapter, InvalidRequest):
            return None
        if adapter_id is not None and record.id != adapter_id.partition("@")[0]:  # a role of that name came first
            versions = [each for each in await client.adapters.list() if each.id == adapter_id]
            if not versions:
                return None
            record = max(versions, key=lambda each: each.registered_ms)
        return None if record.id == BASE_REF or record.status == "removed" else await _info(client, record, role)

    async def all(self, client: Client) -> list[AdapterInfo]:
        """Every version, by ref."""
        records, beats, counters, used = await asyncio.gather(
            client.adapters.list(), client.workers(), client.all_stats(), client.all_last_used()
        )
        resident, slices, infos = residents(beats), Slices(), []
        for record in records:
            facts = {"counters": counters.get(record.ref, {}), "last_used_ms": used.get(record.ref)}
            infos.append(AdapterInfo.of(record, role=None, loaded=record.ref in resident, **facts))
            await slices.between()
        return infos

    async def validated(self, client: Client) -> None:
        """Wait until a worker has judged what was registered here before there was one. Raises AdapterRefused."""
        refused = []
        for ref, roles in sorted(self._unvalidated.items()):
            record = await _decided(client, ref)
            for role in roles:
                await _point(client, role, record)
            del self._unvalidated[ref]
            if record.status == "refused":
                refused.append(f"{ref}: {record.reason}")
        if refused:
            raise AdapterRefused(f"a worker refused {'; '.join(refused)}", reason="; ".join(refused))

    def _uri(self, adapter_path: str) -> str:
        """An absolute path or URI as it is; a relative one from here if it is here, else from adapter_base_path."""
        path, remote = str(adapter_path), self._config.remote_base
        if "://" in path:
            return path
        if remote is not None:
            return f"{remote}/{path.lstrip('/')}"
        folder, base = expanded(path), expanded(self._config.adapter_base_path)
        return as_uri(folder if folder.is_absolute() or folder.exists() else base / folder)

    def _check_base_model(self, uri: str) -> None:
        """Refuse an adapter of another base model before anybody loads it; a path as base says nothing."""
        folder = local_folder(uri)
        if folder is None:
            return
        made_for = read_config(folder).get("base_model_name_or_path")
        if not isinstance(made_for, str) or not made_for or is_path(made_for):
            return
        if not same_name(made_for, self._config.base_model):
            raise CheckpointError(
                f"{folder}: made for the base model {made_for!r}, this server is for {self._config.base_model!r}"
            )


def residents(beats: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Refs in a slot of some worker."""
    return frozenset(ref for beat in beats for ref in str(beat.get("resident", "")).split())


async def _info(client: Client, record: AdapterRecord, role: str | None) -> AdapterInfo:
    counters, last_used_ms, beats = await asyncio.gather(
        client.stats(record.ref), client.last_used(record.ref), client.workers()
    )
    loaded = record.ref in residents(beats)
    return AdapterInfo.of(record, role=role, counters=counters, last_used_ms=last_used_ms, loaded=loaded)


async def _point(client: Client, role: str, record: AdapterRecord) -> None:
    """Have the role mean that version; a pending one takes the role itself when it is ready."""
    means = (await client.adapters.aliases()).get(role.casefold())
    if means != record.ref and (record.status == "ready" or means is None):
        await client.adapters.alias(role, record.ref)


async def _decided(client: Client, ref: str) -> AdapterRecord:
    """That version once it is not pending any more."""
    while True:
        record = await client.adapters.get(ref)
        if record.status != "pending":
            return record
        await asyncio.sleep(0.05)


async def _removed(client: Client, adapter_id: str) -> bool:
    records = [record for record in await client.adapters.list() if record.id == adapter_id]
    for record in records:
        for role in record.aliases:
            await client.adapters.unalias(role)
        await client.adapters.remove(record.ref)
    return bool(records)


async def _own_id(client: Client, role: str) -> str:
    """The role as it was first written: CEO and ceo are one agent."""
    ids = {record.id for record in await client.adapters.list()}
    return role if role in ids else next((name for name in sorted(ids) if name.casefold() == role.casefold()), role)


async def _roles(client: Client) -> dict[str, str]:
    return {role: ref.partition("@")[0] for role, ref in (await client.adapters.aliases()).items()}
