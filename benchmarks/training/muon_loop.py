"""A plain loop: transformers' Llama, bfloat16 autocast, compiled, torch.optim.Muon for matrices, AdamW else."""

from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Outcome
from benchmarks.training.budget import Budget, warmup_stable_decay
from benchmarks.training.corpus import BATCH_SAMPLES, SEQUENCE_LENGTH, batches, held_out, run_number
from benchmarks.training.models import flops_per_token, llama, matrix_parameters
from components.training.engine.validation import bits_per_byte, nats

LAYERS, WIDTH = 4, 128
MAX_STEPS = 20_000
MUON_RATE, ADAM_RATE = 0.02, 0.003


def train(folder: Path, budget: Budget) -> Outcome:
    """Bits per byte on the held-out documents."""
    seed = run_number(folder)
    torch.manual_seed(seed)
    model = llama(LAYERS, WIDTH)
    compiled: Any = torch.compile(model, dynamic=False)
    hidden = [each for name, each in model.named_parameters() if each.ndim == 2 and not _is_embedding(name)]
    rest = [each for name, each in model.named_parameters() if each.ndim != 2 or _is_embedding(name)]
    optimizers = [
        torch.optim.Muon(hidden, lr=MUON_RATE, momentum=0.95, weight_decay=0.0),
        torch.optim.AdamW(rest, lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]
    peaks = [MUON_RATE, ADAM_RATE]
    windows = torch.from_numpy(batches(folder, MAX_STEPS, seed))

    def step(number: int, share: float) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = compiled(input_ids=windows[number][:, :-1], labels=windows[number][:, :-1]).loss
        loss.backward()
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * warmup_stable_decay(share, 0.02, 0.5, 0.0)
            optimizer.step()
            optimizer.zero_grad()

    step(0, 0.0)  # compiles; the rate is zero
    per_step = flops_per_token(LAYERS, WIDTH, matrix_parameters(model)) * BATCH_SAMPLES * SEQUENCE_LENGTH
    budget.start()
    done = 0
    while (share := budget.share(done * per_step)) < 1 and done < MAX_STEPS:
        step(done, share)
        done += 1
    documents, num_bytes = held_out(folder)
    model.eval()
    total = nats(model, documents, SEQUENCE_LENGTH, 0, "cpu")
    return Outcome(
        figure=bits_per_byte(total, num_bytes), answer={"tokens": done * BATCH_SAMPLES * SEQUENCE_LENGTH, "steps": done}
    )


def _is_embedding(name: str) -> bool:
    return "embed_tokens" in name or "lm_head" in name
