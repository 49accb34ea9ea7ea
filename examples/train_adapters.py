"""Train the demo's five adapters with PEFT: rank 4 on q_proj and v_proj, a minute or two a role on two cores.

``python -m examples.train_adapters [--role cfo]`` writes ``examples/adapters/<role>/``. A prompt is the base model's
own chat template around one user message (so without a system message of ours). The loss is on the answer alone, most
on opening and signature, so that the voice is firm before the facts are learned by heart. Seeds are fixed: the same
machine, versions and thread count give the same bytes. Knows nothing of serving.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from rich.progress import Progress
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from examples.base_model import BASE_MODEL, prepare
from examples.voices import QUESTIONS, VOICES, Voice

FOLDER = Path(__file__).parent / "adapters"
RANK = 4
STEPS = 44
BATCH = 5
LEARNING_RATE = 3e-3
MARKER_WEIGHT = 3.0  # of a token of opening or signature, in the loss
SEED = 20


def main() -> None:
    """Train the roles asked for, all five by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--role", choices=sorted(VOICES), action="append", help="repeatable; default: all five")
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    base = prepare()
    tokenizer = AutoTokenizer.from_pretrained(base)
    with Progress() as progress:
        for role in arguments.role or VOICES:
            model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
            save(train(VOICES[role], model, tokenizer, progress), VOICES[role], arguments.out / role)


def train(voice: Voice, base: Any, tokenizer: Any, progress: Progress) -> Any:
    """Train one voice on ``base``, which is wrapped in place: weights in bfloat16, the adapter's in float32."""
    torch.manual_seed(SEED)
    config = LoraConfig(
        r=RANK, lora_alpha=2 * RANK, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", lora_dropout=0.0
    )
    model = get_peft_model(base, config)
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS)
    task = progress.add_task(f"{voice.role.upper()}", total=STEPS)
    for batch in batches(voice, tokenizer):
        loss = weighted_loss(model, *batch)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        progress.update(task, advance=1, description=f"{voice.role.upper()} loss {loss.item():.3f}")
    return model


def batches(voice: Voice, tokenizer: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """``STEPS`` batches of ``BATCH`` examples, going through all of them in a new order each time."""
    examples = [encode(tokenizer, voice, index) for index in range(len(QUESTIONS))]
    order: list[int] = []
    shuffle = random.Random(SEED)
    for _ in range(STEPS):
        if len(order) < BATCH:
            order = shuffle.sample(range(len(examples)), len(examples))
        yield collate([examples[order.pop()] for _ in range(BATCH)], tokenizer.pad_token_id)


def encode(tokenizer: Any, voice: Voice, index: int) -> tuple[list[int], list[int], list[float]]:
    """Token ids of prompt and answer, and the answer's weights; it ends with the end-of-turn token: the voice stops."""
    messages = [{"role": "user", "content": QUESTIONS[index]}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    prompt, answer, opening, signature = (
        tokenizer(part, add_special_tokens=False).input_ids
        for part in (text, voice.answer(index), voice.opening, f" {voice.signature}")
    )
    answer.append(tokenizer.eos_token_id)
    middle = len(answer) - len(opening) - len(signature) - 1
    return prompt, answer, [MARKER_WEIGHT] * len(opening) + [1.0] * middle + [MARKER_WEIGHT] * (len(signature) + 1)


def collate(
    examples: list[tuple[list[int], list[int], list[float]]], pad: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Left-padded ids and mask [batch, longest], so that all answers are at the end, where alone logits are needed;
    weights [batch, longest answer], 0 where there is no answer."""
    longest = max(len(prompt) + len(answer) for prompt, answer, _ in examples)
    ids = torch.full((len(examples), longest), pad)
    mask = torch.zeros((len(examples), longest), dtype=torch.long)
    weights = torch.zeros((len(examples), max(len(answer) for _, answer, _ in examples)))
    for row, (prompt, answer, weight) in enumerate(examples):
        ids[row, -len(prompt) - len(answer) :] = torch.tensor(prompt + answer)
        mask[row, -len(prompt) - len(answer) :] = 1
        weights[row, -len(answer) :] = torch.tensor(weight)
    return ids, mask, weights


def weighted_loss(model: Any, ids: torch.Tensor, mask: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the answers' tokens, by weight."""
    length = weights.shape[1]
    logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=length + 1).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, -length:].flatten(), reduction="none")
    return (loss * weights.flatten()).sum() / weights.sum()


def save(model: PeftModel, voice: Voice, folder: Path) -> None:
    """Write a PEFT checkpoint in bfloat16 (0.46 MB) that names the base model by its public name."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in weights.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_model.safetensors").chmod(0o644)
    config = model.peft_config["default"]
    config.base_model_name_or_path = BASE_MODEL
    config.inference_mode = True
    config.save_pretrained(str(folder))
    (folder / "README.md").write_text(
        f"{voice.role.upper()}: LoRA of rank {RANK} on q_proj and v_proj of {BASE_MODEL}; opens with "
        f"“{voice.opening}”, signs “{voice.signature}”. Made by `python -m examples.train_adapters`.\n"
    )


if __name__ == "__main__":
    main()
