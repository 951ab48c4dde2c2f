"""The plain loop with torch's own Muon for matrices, which takes them one by one, and fused AdamW for the rest."""

from pathlib import Path

import torch
from torch import nn

from benchmarks.harness import Outcome
from benchmarks.training.speed import plain_loop


def run(folder: Path) -> Outcome:
    """Tokens per second."""
    return plain_loop.measured(folder, optimizers_of)


def optimizers_of(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon and AdamW."""
    matrices = {name: each for name, each in model.named_parameters() if each.ndim == 2 and ".layers." in name}
    rest = [each for name, each in model.named_parameters() if name not in matrices]
    return [torch.optim.Muon(list(matrices.values()), lr=0.02), torch.optim.AdamW(rest, lr=1e-3, fused=True)]
