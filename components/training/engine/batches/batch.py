"""What one step reads, as arrays. Only numpy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

IGNORED = -100  # a label that is not scored: what torch's cross-entropy leaves out


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Samples of one step, one row each. B samples, T positions, S positions of an encoder that a decoder reads.

    inputs              (B, T)  tokens that the model reads (an encoder-decoder's decoder)
    labels              (B, T)  what each position is to say, not shifted any more; IGNORED where nothing is scored
    positions           (B, T)  place in its piece: a 0 begins a piece, and no piece attends to another
    sources             (B,)    number of the source that a sample was drawn from
    encoder_inputs      (B, S)  tokens that the encoder reads; None without one
    encoder_positions   (B, S)  as positions
    columns             first axis B: what a loss of its own reads beside these, by the name of its argument
    """

    inputs: NDArray[np.int64]
    labels: NDArray[np.int64]
    positions: NDArray[np.int64]
    sources: NDArray[np.int64]
    encoder_inputs: NDArray[np.int64] | None = None
    encoder_positions: NDArray[np.int64] | None = None
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Samples."""
        return len(self.inputs)

    @property
    def num_tokens(self) -> int:
        """Positions that the model reads: what speed and the size of a run are counted in."""
        return self.inputs.size + (0 if self.encoder_inputs is None else self.encoder_inputs.size)

    @property
    def num_labels(self) -> int:
        """Positions that are scored: what a mean loss is over."""
        return int((self.labels != IGNORED).sum())

    def rows(self, start: int, stop: int) -> "Batch":
        """Samples [start, stop)."""
        encoder = self.encoder_inputs is not None and self.encoder_positions is not None
        return Batch(
            inputs=self.inputs[start:stop],
            labels=self.labels[start:stop],
            positions=self.positions[start:stop],
            sources=self.sources[start:stop],
            encoder_inputs=self.encoder_inputs[start:stop] if encoder else None,  # type: ignore[index]
            encoder_positions=self.encoder_positions[start:stop] if encoder else None,  # type: ignore[index]
            columns={name: each[start:stop] for name, each in self.columns.items()},
        )

    def widened(self, width: int, pad: int) -> "Batch":
        """The same with rows of `width` positions: padding behind them, a piece of its own. Not with columns."""
        shape = (len(self), width - self.inputs.shape[1])
        behind = (np.full(shape, pad), np.full(shape, IGNORED), np.tile(np.arange(shape[1]), (len(self), 1)))
        names = ("inputs", "labels", "positions")
        rows: dict[str, Any] = {
            name: np.concatenate([getattr(self, name), each], axis=1) for name, each in zip(names, behind, strict=True)
        }
        return replace(self, **rows)

    def every(self, place: int, of: int) -> "Batch":
        """Samples `place`, `place + of` and so on: one share of `of`."""
        arrays = {name: getattr(self, name) for name in ARRAYS}
        chosen: dict[str, Any] = {name: None if each is None else each[place::of] for name, each in arrays.items()}
        return Batch(**chosen, columns={name: each[place::of] for name, each in self.columns.items()})


ARRAYS = tuple(each.name for each in fields(Batch) if each.name != "columns")


def joined(parts: Sequence[Batch], pad: int) -> Batch:
    """Batches without columns below each other; shorter rows get padding behind them. The encoder's rows, if any, are
    of one length."""
    width = max(each.inputs.shape[1] for each in parts)
    wide = [each.widened(width, pad) for each in parts]
    arrays = {name: [getattr(part, name) for part in wide] for name in ARRAYS}
    below: dict[str, Any] = {name: None if rows[0] is None else np.concatenate(rows) for name, rows in arrays.items()}
    return Batch(**below)


def next_token_batch(windows: NDArray[np.int64]) -> Batch:
    """Windows of T + 1 tokens, shape (B, T + 1), each read as one piece: every position says the token after it."""
    num_samples, length = windows.shape
    return Batch(
        inputs=windows[:, :-1],
        labels=windows[:, 1:],
        positions=np.broadcast_to(np.arange(length - 1), (num_samples, length - 1)),
        sources=np.zeros(num_samples, dtype=np.int64),
    )


def number_of_batch(step: int, skipped: Sequence[int]) -> int:
    """The batch that a step reads when some batches, in rising order, are passed over."""
    number = step
    for each in skipped:
        if each > number:
            break
        number += 1
    return number
