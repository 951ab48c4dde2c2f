"""The engine's trainer, as the stage sets it up on these cores, but with the peers' AdamW for all parameters."""

import os
import statistics
import time
from pathlib import Path
from typing import Literal

from components.training.engine.devices.cores import SPINNING, pinned

os.environ |= SPINNING  # as the stage's worker runs; before torch is imported

import numpy as np
import torch
from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM

from benchmarks.harness import Outcome
from benchmarks.training.speed.given import UNTIMED_STEPS, shape
from components.training.config import PretrainConfig
from components.training.engine.batches.batch import next_token_batch
from components.training.engine.figures import gemm_flops
from components.training.engine.optimizer import Rates
from components.training.engine.trainer import Recipe, Trainer, World

PEAK_ROUNDS = 5


def run(folder: Path) -> Outcome:
    """Tokens per second."""
    return measured(folder, "adamw")


def measured(folder: Path, optimizer: Literal["muon", "adamw"]) -> Outcome:
    """Tokens per second with an update rule for the matrices, and the share of the machine's limit that this is."""
    windows = np.load(folder / "windows.npy")
    model = Qwen3ForCausalLM.from_pretrained(folder / "model", dtype="float32")
    peak = max(gemm_flops(torch.bfloat16, "cpu") for _ in range(PEAK_ROUNDS))
    recipe = Recipe(
        precision="bfloat16",
        compiled=True,
        micro_batch_samples=windows.shape[1],
        rates=Rates(**PretrainConfig().rates.model_dump(), optimizer=optimizer),
        report_every_steps=1,
        validate_every_steps=1,
        checkpoint_seconds=1e9,
    )
    trainer = Trainer(model, recipe, World(), print)
    trainer.warm_up(next_token_batch(windows[0]))
    losses, seconds = [], []
    with pinned(torch.get_num_threads()):
        for step, each in enumerate(windows):
            started = time.perf_counter()
            losses.append(trainer.accumulate(step, next_token_batch(each)).loss)
            trainer.update(step, 1.0)
            seconds.append(time.perf_counter() - started)
    per_second = windows[0, :, 1:].size / statistics.median(seconds[UNTIMED_STEPS:])
    limit = peak / shape().training_flops_per_token(windows.shape[2] - 1)
    answer = {
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "limit": limit,
        "share_of_limit": per_second / limit,
    }
    return Outcome(figure=per_second, answer=answer)
