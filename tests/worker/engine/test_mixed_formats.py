"""From PEFT's files to logits: every served format in one batch, against PEFT's own unmerged forward."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch

from lorapool.shared.job import BASE_REF
from lorapool.worker.adapters.checkpoint import load_checkpoint
from lorapool.worker.engine.sequence import Batch, Work
from tests.worker.checkpoints import save_adapter, tiny_llama
from tests.worker.tiny import runner_over, sequence

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FORMATS: list[dict[str, Any]] = [
    {},
    {"use_dora": True, "target_modules": LINEAR},
    {"use_dora": True, "use_rslora": True, "target_modules": LINEAR, "rank_pattern": {"q_proj": 9}},
    {"lora_bias": True, "target_modules": ["q_proj", "v_proj"]},
    {"target_modules": ["q_proj", "lm_head"]},
    {"target_modules": ["v_proj", "embed_tokens"], "use_rslora": True},
    {"target_modules": ["embed_tokens", "lm_head"], "use_dora": True},
    {"layers_to_transform": [1], "alpha_pattern": {"v_proj": 3}},
]


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")
@pytest.mark.filterwarnings("ignore:Adapter 'default'.*invalid shape:UserWarning")
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.parametrize("tied", [False, True])
def test_all_formats_and_the_base_in_one_step_are_each_peft_alone(tmp_path, tied):
    """LoRA, DoRA, rsLoRA with patterns, LoRA bias, a head, an embedding, both ends and one layer only, beside a base
    row: equal in float64, whether the base ties its ends or not."""
    model = tiny_llama(max_position_embeddings=256, initializer_range=0.4, tie_word_embeddings=tied)
    runner = runner_over(deepcopy(model), slots=len(FORMATS), lora_dtype=torch.float64)
    alone: list[Any] = [model]
    for slot, config in enumerate(FORMATS, start=1):
        alone.append(save_adapter(tmp_path / str(slot), model, seed=slot, **config))
        runner.lora.write(slot, load_checkpoint(tmp_path / str(slot), runner.spec, max_rank=16))
    works, expected = [], []
    for slot, reference in enumerate(alone):
        ids = torch.randint(0, 64, (5 + slot,)).tolist()
        row = sequence(f"row{slot}", ids, ref=f"a{slot}@1" if slot else BASE_REF)
        row.slot = slot
        assert runner.reserve(row.seq_id, 32)
        works.append(Work(row, 0, len(ids)))
        expected.append(reference(torch.tensor([ids])).logits[0])
        moved = (expected[-1] - model(torch.tensor([ids])).logits[0]).abs().max()
        assert (slot > 0) == bool(moved > 0.1), f"adapter {slot} moves the logits by {moved}: it must matter"
    logits = runner.all_logits(Batch.of(tuple(works)))
    for slot, (want, found) in enumerate(zip(expected, logits.split([len(rows) for rows in expected]), strict=True)):
        torch.testing.assert_close(found, want, rtol=1e-10, atol=1e-10, msg=lambda text, slot=slot: f"{slot}: {text}")
