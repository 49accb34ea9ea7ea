"""What an adapter was trained on top of, where that is not the base model itself: it is not served alone.

An adapter trained after another one was merged into the base (preference tuning on a merged SFT model, mostly) fits
that merged model only. On the base alone it would load, run, and answer wrongly.
"""

from __future__ import annotations

import re

from lorapool.shared.catalog.adapter_record import AdapterRecord
from lorapool.shared.errors import CheckpointError

_MERGED = re.compile(r"(?:^|[-_.])merged?(?:$|[-_.])")
_REMEDY = "merge them into one adapter, or serve the merged model as a base model of its own"


def refuse_trained_on_merged(record: AdapterRecord, served: str) -> None:
    """Raises CheckpointError for an adapter with parents: recorded, or shown by the name of its base model.

    ``served`` is the name of the pool's base model, which may itself be called merged.
    """
    if record.parents:
        parents = ", ".join(record.parents)
        raise CheckpointError(f"trained on top of {parents}: without them it answers wrongly; {_REMEDY}")
    name, own = (base.rstrip("/").rpartition("/")[2].casefold() for base in (record.base_model, served))
    if name != own and _MERGED.search(name):
        raise CheckpointError(
            f"base_model_name_or_path = {record.base_model!r} says that it was trained on a merged model; {_REMEDY}, "
            f"or correct the name in adapter_config.json if it is the base model itself"
        )
