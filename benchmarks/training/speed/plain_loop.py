"""The plain loop at its best: weights in bfloat16, the model's own loss, torch.compile, fused AdamW."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM

from benchmarks.harness import Outcome
from benchmarks.training.speed.given import UNTIMED_STEPS


def run(folder: Path) -> Outcome:
    """Tokens per second."""
    return measured(folder, lambda model: [torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)])


def measured(folder: Path, optimizers_of: Callable[[nn.Module], list[torch.optim.Optimizer]]) -> Outcome:
    """Tokens per second."""
    windows = torch.from_numpy(np.load(folder / "windows.npy"))
    model = Qwen3ForCausalLM.from_pretrained(folder / "model", dtype="bfloat16")
    model.train()
    compiled: Any = torch.compile(model, dynamic=False)
    optimizers = optimizers_of(model)
    losses, seconds = [], []
    for each in windows:
        started = time.perf_counter()
        # The model shifts its labels, so the last token of a window has nothing to predict.
        loss = compiled(input_ids=each[:, :-1], labels=each[:, :-1]).loss
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(float(loss.detach()))
        seconds.append(time.perf_counter() - started)
    figure = each[:, 1:].numel() / statistics.median(seconds[UNTIMED_STEPS:])
    return Outcome(figure=figure, answer={"first_loss": losses[0], "last_loss": losses[-1]})
