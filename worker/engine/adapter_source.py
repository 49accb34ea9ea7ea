"""AdapterSource: which adapter version is meant, and where it is said to be. Knows no files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AdapterSource:
    """An adapter version: its ref, the digest its content must have, and the uri of its folder."""

    ref: str
    digest: str
    uri: str
