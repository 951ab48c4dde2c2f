"""Figures that differ from processor to processor, and how far each stays from the bound that its test holds it to.

Vector width, tile units and threads change the order of sums, hence the last bits of every product and in time each
loss. A bound that is close to what one machine gives fails on another. So a test states the whole effect, and the room
that its bound leaves is kept beside its result: `make processors` asks for a third of the effect, in every setting.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

ROOM = "room"


@dataclass(frozen=True, slots=True)
class Margins:
    """Asserts bounds and records the room of each, as a share of the effect or of the tolerance."""

    record: Callable[[str, object], None]

    def effect(self, name: str, effect: float, *, least: float) -> None:
        """What was learned, moved or separated, counted from where nothing is, reaches `least`."""
        self._keep(name, 1 - least / effect if effect > 0 else -1.0)
        assert effect >= least, f"{name}: {effect:.6g}, needed at least {least:.6g}"

    def error(self, name: str, error: float, *, most: float) -> None:
        """A difference from what is right stays within `most`."""
        self._keep(name, 1 - error / most)
        assert error <= most, f"{name}: {error:.6g}, allowed {most:.6g}"

    def close(self, name: str, result: Tensor, reference: Tensor, *, rtol: float, atol: float) -> None:
        """Tensors of one shape are equal within atol + rtol |reference|, element by element."""
        assert result.shape == reference.shape, f"{name}: shape {result.shape}, needed {reference.shape}"
        result, reference = result.detach().double(), reference.detach().double()
        share = ((result - reference).abs() / (atol + rtol * reference.abs())).max()
        self.error(name, float(torch.nan_to_num(share, nan=float("inf"))), most=1.0)

    def _keep(self, name: str, room: float) -> None:
        self.record(ROOM, f"{name}={room:.4f}")
