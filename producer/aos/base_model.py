"""Whether two names mean the same base model: 8B and 70B must never be taken for each other silently.

A hub id with its owner is compared whole; a bare name (a folder's) with the last part of the other. Knows no files.
"""

from __future__ import annotations

import re

from lorapool.shared.catalog.catalog import PoolConfig

_PATH = re.compile(r"^([./~]|[A-Za-z]:\\)")


def is_path(name: str) -> bool:
    """Whether it names a folder of some machine, which says nothing of the model's identity elsewhere."""
    return bool(_PATH.match(name))


def same_name(one: str, other: str) -> bool:
    """Both may be ``owner/name``, ``owner/name@revision``, a bare name, or a folder (its last part counts)."""
    owner, name = _parts(one)
    other_owner, other_name = _parts(other)
    return name == other_name and (not owner or not other_owner or owner == other_owner)


def served_instead(wanted: str, revision: str | None, config: PoolConfig) -> str | None:
    """What the pool serves if that is not what is wanted, with revisions where they decide; else None."""
    if not same_name(wanted, config.base_model):
        return config.base_model
    asked = revision or (wanted.partition("@")[2] if not is_path(wanted) else "")
    if asked and config.revision and asked != config.revision:
        return f"{config.base_model}@{config.revision}"
    return None


def _parts(name: str) -> tuple[str, str]:
    """(owner or '', name), case-folded."""
    if is_path(name):
        return "", name.rstrip("/").rpartition("/")[2].casefold()
    owner, _, last = name.partition("@")[0].rpartition("/")
    return owner.casefold(), last.casefold()
