"""Tokens per second of one model of 7.8M parameters: ours against transformers' Trainer and a plain compiled loop.

All load the same weights, read the same batches of 8 x 256 tokens on all cores and update by AdamW: what is compared is
the engine; speed_muon has the update that the stage takes. The median of the steps counts.
The limit is what the machine's bfloat16 matrix product gives, measured by ours before its steps.
"""

import importlib
from pathlib import Path
from typing import Any

from benchmarks.harness import Comparison

COMPARISON = Comparison(
    name="training speed",
    unit="tokens/s",
    peers={"hf_trainer": 2.0, "plain_loop": 1.0},
    limit_name="bfloat16 matrix product, the best of 384, 1024 and 2048 wide",
    peers_in_our_environment=True,
)
LOSS_TOLERANCE = 0.02


def prepare(folder: Path) -> None:
    """The same start for all sides."""
    importlib.import_module("benchmarks.training.speed.given").prepare(folder)


def agree(folder: Path, ours: dict[str, Any], peer: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError unless the loss of the first step, before any update, is the same within bfloat16."""
    if abs(ours["first_loss"] - peer["first_loss"]) > LOSS_TOLERANCE:
        raise ValueError(f"the first losses differ: {ours['first_loss']:.4f} and {peer['first_loss']:.4f}")
    return {
        "first_loss": round(ours["first_loss"], 3),
        "share_of_limit": round(ours["share_of_limit"], 3),
        "losses_after": [round(each["last_loss"], 3) for each in (ours, peer)],
    }
