"""What a stage has cost: the abilities of a model before and after it, on the same held-out windows.

text        mean nats of the next token of held-out documents; its growth is that of bits per byte. Of an
            encoder-decoder, of what denoising asks
infilling   mean nats of the tokens of held-out middles, between the code before and behind them
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from components.alignment.config import GuardConfig
from components.alignment.objectives.replay import Windows
from components.core.errors import DataError
from components.tokens.encoding.special import SpecialTokens
from components.training.engine.batches.batch import IGNORED, Batch
from components.training.engine.model.loss import mean_nats
from components.training.parameters.objectives import ObjectivesConfig

ROWS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """Mean nats a token; None where nothing could be measured."""

    text: float | None
    infilling: float | None


class Guard:
    """Measures abilities and says whether a change may stand."""

    def __init__(
        self,
        config: GuardConfig,
        tokens: Path,
        tokenizer: Path,
        *,
        length: int,
        seed: int,
        denoising: ObjectivesConfig | None = None,
    ) -> None:
        """`length` positions of a window, of the held-out documents at `tokens`; `denoising` as in replay."""
        self.config = config
        self.special = SpecialTokens.read(tokenizer)
        infills = self.special.fim_middle is not None and denoising is None
        self._windows = [
            Windows(
                tokens,
                tokenizer,
                split="validation",
                length=length,
                infill_rate=rate,
                seed=seed,
                denoising=denoising,
            )
            for rate in ((0.0, 1.0) if infills else (0.0,))
        ]
        self.number = min(config.windows, self._windows[0].number)
        if not self.number:
            raise DataError(f"{tokens}: the held-out documents fill no window of {length} tokens; hold more out")

    def measure(self, model: PreTrainedModel) -> Abilities:
        """Both figures of a model."""
        text = mean_nats(model, self._batches(self._windows[0]))
        if len(self._windows) == 1:
            return Abilities(text=text, infilling=None)
        infilled = (replace(each, labels=self._middles(each)) for each in self._batches(self._windows[1]))
        return Abilities(text=text, infilling=mean_nats(model, infilled))

    def objection(self, before: Abilities, after: Abilities) -> str | None:
        """Why the change may not stand, in a few words; None when it may."""
        limits = {"text": self.config.max_text_loss, "infilling": self.config.max_infilling_loss}
        for name, limit in limits.items():
            cost = growth(getattr(before, name), getattr(after, name))
            if cost is not None and not cost <= limit:
                return f"{name} is worse by {cost:.1%}, at most {limit:.1%} is allowed"
        return None

    def record(self, before: Abilities, after: Abilities) -> dict[str, float]:
        """For an artifact's statistics: both figures before and after, and their growth as a share."""
        record: dict[str, float] = {}
        for name in ("text", "infilling"):
            first, last = getattr(before, name), getattr(after, name)
            cost = growth(first, last)
            if cost is not None:
                record |= {f"{name}_nats_before": first, f"{name}_nats_after": last, f"{name}_loss": cost}
        return record

    def _batches(self, windows: Windows) -> Iterator[Batch]:
        for first in range(0, self.number, ROWS):
            yield windows.batch(range(first, min(first + ROWS, self.number)))

    def _middles(self, batch: Batch) -> NDArray[np.int64]:
        """The labels behind a piece's token that begins its middle, up to its end; shape (B, T)."""
        piece = np.cumsum(batch.positions == 0, axis=1)
        begun = np.cumsum(batch.inputs == self.special.fim_middle, axis=1)
        first = np.zeros_like(begun)
        for row in range(len(batch)):
            starts = np.flatnonzero(batch.positions[row] == 0)
            before = np.where(starts > 0, begun[row][np.maximum(starts - 1, 0)], 0)
            first[row] = before[piece[row] - piece[row][0]]
        return np.where(begun > first, batch.labels, IGNORED)


def growth(before: float | None, after: float | None) -> float | None:
    """By which share nats have grown; None where they were not measured."""
    return None if before is None or after is None else after / before - 1
