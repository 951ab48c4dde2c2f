"""Several workers of one run: who they are, and what they agree on. Plain torch."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Which of how many workers this is, and where it computes."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"


def agreed(value: float, world: World) -> float:
    """Worker 0's number on every worker, so that all take the same decisions."""
    if world.size == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64, device=world.device)
    torch.distributed.broadcast(shared, src=0)
    return float(shared)
