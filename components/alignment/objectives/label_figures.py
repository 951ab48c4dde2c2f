"""Log-probabilities of labels with their gradient, and what the distribution says of them. Plain torch.

What a loss beside cross-entropy is made of: policy gradients, preferences. Logits of at most LOGITS_BYTES exist at a
time; where that is less than all, they are computed again in the backward pass.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from components.training.engine.batches.batch import IGNORED, Batch
from components.training.engine.model.forward import Tensors, features, output_weight
from components.training.engine.model.loss import LOGITS_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFigures:
    """Of the N positions of a batch that have a label, row by row.

    places      of the flat batch, shape (N,)
    hidden      what the last block says there, shape (N, D)
    log_probs   of the label, shape (N,), with gradient
    entropies   of the distribution, in nats, shape (N,), without gradient
    variances   of -ln p under the distribution itself, likewise
    auxiliary   a loss of the model's own, shape ()
    """

    places: Tensor
    hidden: Tensor
    log_probs: Tensor
    entropies: Tensor
    variances: Tensor
    auxiliary: Tensor

    def chosen(self, column: Tensor) -> Tensor:
        """A column of the batch, shape (B, T), at these positions, shape (N,)."""
        return column.flatten()[self.places]


def label_figures(model: PreTrainedModel, batch: Tensors) -> LabelFigures:
    """Run the model and say what it makes of the batch's labels."""
    output = features(model, batch)
    labels = batch.labels.flatten()
    places = (labels != IGNORED).nonzero()[:, 0]
    hidden, weight = output.hidden.flatten(0, 1)[places], output_weight(model)
    rows = max(1, LOGITS_BYTES[hidden.device.type] // (4 * weight.shape[0]))
    parts = list(zip(torch.split(hidden, rows), torch.split(labels[places], rows), strict=True))
    figures = [
        _chunk(part, weight, wanted) if len(parts) == 1 else _again(part, weight, wanted) for part, wanted in parts
    ]
    log_probs, entropies, variances = (torch.cat(each) for each in zip(*figures, strict=True))
    return LabelFigures(
        places=places,
        hidden=hidden,
        log_probs=log_probs,
        entropies=entropies,
        variances=variances,
        auxiliary=log_probs.new_zeros(()) if output.auxiliary is None else output.auxiliary,
    )


@torch.no_grad()
def token_nats_of(model: PreTrainedModel, batch: Batch) -> NDArray[np.float32]:
    """-ln p of each label of a batch, shape (B, T), 0 where there is none."""
    arrays = {name: getattr(batch, name) for name in ("inputs", "labels", "positions")}
    figures = label_figures(
        model, Tensors(**{name: torch.from_numpy(np.array(each)).to(model.device) for name, each in arrays.items()})
    )
    nats = torch.zeros(batch.labels.size, device=model.device).index_put((figures.places,), -figures.log_probs)
    return nats.view(batch.labels.shape).cpu().numpy()


def _again(hidden: Tensor, weight: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    figures: tuple[Tensor, Tensor, Tensor] = checkpoint(_chunk, hidden, weight, labels, use_reentrant=False)
    return figures


def _chunk(hidden: Tensor, weight: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    log_probs = functional.linear(hidden, weight).float().log_softmax(dim=-1)
    with torch.no_grad():
        probabilities = log_probs.exp()
        entropies = -(probabilities * log_probs).sum(dim=-1)
        variances = (probabilities * log_probs.square()).sum(dim=-1) - entropies.square()
    return log_probs.gather(1, labels[:, None])[:, 0], entropies, variances
