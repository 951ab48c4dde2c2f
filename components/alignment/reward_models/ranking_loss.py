"""The ranking loss of reward models: -ln sigmoid(r(chosen) - r(rejected) - margin), summed over pairs. Plain torch.

Touvron et al. 2023 (Llama 2, arXiv:2307.09288, section 3.2.2, equation 2). The score r of an answer is linear in the
last block's features at the answer's last token. Both answers of a pair lie in one row, chosen first, as pieces that do
not see each other (PackedPairs), and the pair's only label is at the end of the chosen one: a mean over labels is one
over pairs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from components.alignment.examples.packing import Rows
from components.training.engine.batches.batch import IGNORED, Batch
from components.training.engine.model.forward import Tensors, features

HEAD = "score"  # as transformers' sequence classifiers of decoders call it


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedPair:
    """Ids of a prompt with each answer, and by how much the chosen one has to be better."""

    chosen: NDArray[np.int32]
    rejected: NDArray[np.int32]
    margin: float = 0.0


class PackedPairs(Rows):
    """Rows of pairs."""

    def __init__(self, pairs: Sequence[RankedPair], order: Iterator[int], length: int, pad: int) -> None:
        """`length` positions of a row; no pair may have more."""
        self.pairs = pairs
        self.length = length
        super().__init__([(len(each.chosen) + len(each.rejected),) for each in pairs], order, (length,), pad)

    def batch(self, rows: Sequence[int]) -> Batch:
        """Some rows, shape (rows, length). Columns: `ends` is 1 where an answer ends, `margins` are there as well."""
        shape = (len(rows), self.length)
        inputs, labels = np.full(shape, self.pad, np.int64), np.full(shape, IGNORED, np.int64)
        positions, ends, margins = np.zeros(shape, np.int64), np.zeros(shape, bool), np.zeros(shape, np.float32)
        for number, row in enumerate(rows):
            start = 0
            for pair in map(self.pairs.__getitem__, self.members(row)):
                for ids, is_chosen in ((pair.chosen, True), (pair.rejected, False)):
                    place = slice(start, start := start + len(ids))
                    inputs[number, place], positions[number, place] = ids, np.arange(len(ids))
                    ends[number, start - 1] = True
                    if is_chosen:
                        labels[number, start - 1], margins[number, start - 1] = 0, pair.margin
            positions[number, start:] = np.arange(self.length - start)
        columns = {"ends": ends, "margins": margins}
        sources = np.zeros(len(rows), np.int64)
        return Batch(inputs=inputs, labels=labels, positions=positions, sources=sources, columns=columns)


def scores_at(model: PreTrainedModel, batch: Tensors, ends: Tensor) -> Tensor:
    """Scores in float32 where `ends`, shape (B, T), is true: row by row, shape (answers,)."""
    hidden = features(model, batch).hidden[ends]
    scores: Tensor = model.get_submodule(HEAD)(hidden).float()[:, 0]
    return scores


class RankingLoss(nn.Module):
    """What training a reward model lowers; takes a batch's arrays and columns by name."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model: PreTrainedModel = model

    def forward(
        self, inputs: Tensor, labels: Tensor, positions: Tensor, *, ends: Tensor, margins: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The sum over pairs, shape (); no loss of the model's own, shape (); and nats of each row, shape (B,)."""
        scores = scores_at(self.model, Tensors(inputs=inputs, labels=labels, positions=positions), ends)
        chosen, rejected = scores.view(-1, 2).unbind(dim=1)
        nats = -functional.logsigmoid(chosen - rejected - margins[ends].view(-1, 2)[:, 0])
        rows = torch.arange(len(inputs), device=inputs.device)[:, None].expand_as(ends)[ends].view(-1, 2)[:, 0]
        by_row = torch.zeros(len(inputs), device=inputs.device).index_add(0, rows, nats.detach())
        return nats.sum(), nats.new_zeros(()), by_row
