"""How much a run may spend: seconds on the clock, or floating-point operations."""

import time
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Budget:
    """Either `seconds` of training, compilation left out, or `flops`. Rates follow the share that is spent."""

    seconds: float | None = None
    flops: float | None = None
    started: float = field(default=0.0, init=False)

    def start(self) -> None:
        """The clock runs from here."""
        self.started = time.perf_counter()

    def share(self, flops_spent: float) -> float:
        """What is spent, from 0 to 1 and above."""
        if self.seconds is not None:
            return (time.perf_counter() - self.started) / self.seconds
        assert self.flops is not None
        return flops_spent / self.flops


def warmup_stable_decay(share: float, warmup: float, decay: float, final: float) -> float:
    """Share of the peak rate: rises over `warmup` of the budget, falls in a line to `final` over the last `decay`."""
    if share < warmup:
        return share / warmup
    return 1.0 if share < 1 - decay else final + (1 - final) * max(0.0, 1 - share) / decay
