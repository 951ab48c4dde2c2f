"""nanochat's recipe: its model at depth 4 and width 128, its optimizer and schedules, in float32 as on its CPUs."""

from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Outcome
from benchmarks.training.budget import Budget
from benchmarks.training.corpus import BATCH_SAMPLES, SEQUENCE_LENGTH, batches, held_out, run_number
from benchmarks.training.models import flops_per_token
from benchmarks.training.nanochat_model import MuonAdamW, Nanochat, decay_at, momentum_at, schedule
from components.training.engine.validation import bits_per_byte, nats

LAYERS, WIDTH, HEAD_WIDTH = 4, 128, 64
MAX_STEPS = 20_000
WARMUP_STEPS = 40
# It scales all rates by the square root of (tokens of a batch / 2^19), tuned on batches a hundred times ours; at 2,048
# tokens that is 1/16 and learns next to nothing in minutes, so the peer keeps its rates.
BATCH_SCALE = 1.0
WEIGHT_DECAY = 0.28


def train(folder: Path, budget: Budget) -> Outcome:
    """Bits per byte on the held-out documents."""
    seed = run_number(folder)
    torch.manual_seed(seed)
    model = Nanochat(4096, LAYERS, WIDTH, HEAD_WIDTH, SEQUENCE_LENGTH)
    optimizer = MuonAdamW(model, WIDTH, BATCH_SCALE, WEIGHT_DECAY)
    compiled: Any = torch.compile(model, dynamic=False)
    windows = torch.from_numpy(batches(folder, MAX_STEPS, seed))
    compiled(windows[0]).backward()
    optimizer.step(0.0, 0.85, 0.0)  # compiles; the rates are zero
    matrices = sum(each.numel() for each in model.model.blocks.parameters()) + model.lm_head.weight.numel()
    per_step = flops_per_token(LAYERS, WIDTH, matrices) * BATCH_SAMPLES * SEQUENCE_LENGTH
    budget.start()
    done = 0
    while (share := budget.share(done * per_step)) < 1 and done < MAX_STEPS:
        compiled(windows[done]).backward()
        optimizer.step(
            schedule(share, 0.0) * min(1.0, (done + 1) / WARMUP_STEPS), momentum_at(done, share), decay_at(share)
        )
        done += 1
    documents, num_bytes = held_out(folder)
    model.eval()
    total = nats(model, documents, SEQUENCE_LENGTH, 0, "cpu")
    return Outcome(
        figure=bits_per_byte(total, num_bytes), answer={"tokens": done * BATCH_SAMPLES * SEQUENCE_LENGTH, "steps": done}
    )
