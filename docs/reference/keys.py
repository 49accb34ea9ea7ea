"""Every key in Redis, with its type and what it holds."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from docs.reference.markdown import code, prose, table
from lorapool.shared.server.keys import OF_SCRIPTS, ONCE, Keys, PoolKeys

HEAD = """# Keys

All that lorapool keeps in Redis. Keys of one partition share the hash tag `{<pool>/<p>}`, those of the catalog
`{<pool>}`, so that each group lies in one slot of a cluster. There is one partition for now, number 0.
`redis-cli` reads all of it; [operations.md](../operations.md#with-redis-cli) has examples.
"""
POOL, PARTITION = PoolKeys("<pool>"), Keys("<pool>")
PARAMETERS = {"job_id": "<job>", "ref": "<ref>", "agent": "<agent>", "client": "<client>", "worker": "<worker>",
              "alias": "<alias>", "name": "<name>", "lane": "<lane>", "file_id": "<file>", "batch_id": "<batch>",
              "key": "<key>", "digest": "<sha256>"}  # fmt: skip
Row = tuple[str, str]


def page() -> str:
    partition, pool = [*named(PARTITION), *ONCE.items(), *OF_SCRIPTS.items()], list(named(POOL))
    parts = [HEAD, f"## Of the pool: `{POOL.prefix}…`\n", _table(pool)]
    return "\n".join([*parts, "## Of a partition: `lp:{<pool>/<p>}:…`\n", _table(partition)])


def named(keys: Keys | PoolKeys) -> Iterator[Row]:
    """(name below the prefix, "type: meaning") of each property and method that is a key."""
    for name, member in vars(type(keys)).items():
        doc = inspect.getdoc(member) or ""
        if not name.startswith("_") and doc.partition(":")[0] in TYPES:
            yield _key(keys, name, member).removeprefix(keys.prefix), doc


TYPES = {"hash", "zset", "set", "stream", "string", "list"}


def _key(keys: Keys | PoolKeys, name: str, member: object) -> str:
    if isinstance(member, property):
        return str(getattr(keys, name))
    parameters = inspect.signature(getattr(keys, name)).parameters
    return str(getattr(keys, name)(*(PARAMETERS[parameter] for parameter in parameters)))


def _table(rows: list[Row]) -> str:
    return table(("key", "type", "holds"), sorted(_cells(*row) for row in rows))


def _cells(name: str, doc: str) -> tuple[str, str, str]:
    kind, _, meaning = doc.partition(":")
    return code(name), kind, prose(meaning).strip()
