"""An adapter trained on top of something else than the base model is not served alone."""

from __future__ import annotations

import pytest

from lorapool.shared.catalog.adapter_record import AdapterRecord
from lorapool.shared.errors import CheckpointError
from lorapool.worker.adapters.trained_on_merged import refuse_trained_on_merged


def record(**fields: object) -> AdapterRecord:
    return AdapterRecord(id="cfo", version="1", digest="d" * 64, uri="file:///cfo", **fields)


def test_parents_are_named() -> None:
    """The reason says what is missing."""
    with pytest.raises(CheckpointError, match=r"trained on top of cfo-sft@1, style@2"):
        refuse_trained_on_merged(record(parents=("cfo-sft@1", "style@2")), "org/base")


@pytest.mark.parametrize("name", ["/out/sft-merged", "merged", "org/base_merged", "/out/merged.v2/", "/x/Merge"])
def test_a_merged_base_shows_in_its_name(name: str) -> None:
    """Whether it is a folder or a public name."""
    with pytest.raises(CheckpointError, match="merged model"):
        refuse_trained_on_merged(record(base_model=name), "org/base")


@pytest.mark.parametrize("name", ["", "org/base", "/models/base", "emerged-7b", "/merged/base"])
def test_others_are_not_suspected(name: str) -> None:
    """The last part of the name decides, and only as a word of its own."""
    refuse_trained_on_merged(record(base_model=name), "org/base")


def test_the_pools_own_base_may_be_a_merged_one() -> None:
    """Its adapters name it so."""
    refuse_trained_on_merged(record(base_model="/elsewhere/Mix-Merged"), "org/mix-merged")
