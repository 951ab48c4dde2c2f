"""From features to losses per token, without ever holding the logits of a whole batch. Only torch,
transformers and numpy.

The gradient of a sum of cross-entropies is known as soon as the logits are: `FusedLoss` takes both from a few rows of
logits at a time, as Liger (arXiv:2410.10989) and cut cross-entropy (Wijmans et al. 2024, arXiv:2411.09009) do, in plain
torch, so that the compiler fuses it on any device. torch.nn.functional.linear_cross_entropy leaves compiled graphs and
gives no loss per token.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers.modeling_utils import PreTrainedModel

from components.training.engine.batches.batch import IGNORED, Batch
from components.training.engine.model.forward import Tensors, features, output_weight

# Logits held at once, in the compute precision. On a CPU about its last cache: at 2,048 x 4,096 one chunk took 5 % less
# time than plain and compiled half as fast, chunks of 128 rows took 1 % more. A GPU wants thousands of rows. No GPU was
# measured.
LOGITS_BYTES = {"cpu": 32 << 20, "cuda": 512 << 20}


def token_nats(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """-ln p of each label in float32, shape (B, T), 0 where a label is IGNORED. hidden (B, T, D), weight (V, D)."""
    logits = functional.linear(hidden, weight).float()
    nats = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none")
    return nats.view(labels.shape)


class FusedLoss(torch.autograd.Function):
    """Sum over N tokens of -ln p + z_loss * ln(Z)^2, and -ln p of each, which carries no gradient.

    Z is the sum of a token's exponentials (z-loss: Chowdhery et al. 2022, arXiv:2204.02311, section 5). Logits of at
    most `limit_bytes` exist at a time. In float32 loss and gradients agree with the plain ones to rounding; in bfloat16
    logits and their gradients are rounded as there, and the weight's gradient is summed over chunks in float32:
    relative differences (norm) of 2e-7 and, in several chunks, 3e-3, of the size of bfloat16's rounding.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, z_loss: float, limit_bytes: int
    ) -> tuple[Tensor, Tensor]:
        """hidden (N, D), weight (V, D), labels (N,) -> sum, shape (), and nats, shape (N,)."""
        rows = _rows_of_chunk(len(hidden), limit_bytes // (weight.shape[0] * weight.element_size()))
        nats, squares, of_hidden = [], [], []
        of_weight: Tensor | None = None
        for start in range(0, len(hidden), rows):
            part = hidden[start : start + rows]
            chunk_nats, square, of_logits = _chunk(part, weight, labels[start : start + rows], z_loss)
            nats.append(chunk_nats)
            squares.append(square)
            of_hidden.append(of_logits @ weight)
            added = of_logits.mT @ part
            if rows < len(hidden):
                added = added.float()
            of_weight = added if of_weight is None else of_weight + added
        every = torch.cat(nats)
        ctx.save_for_backward(torch.cat(of_hidden), of_weight)
        ctx.dtype = weight.dtype
        ctx.mark_non_differentiable(every)
        total = every.sum() + z_loss * torch.stack(squares).sum() if z_loss else every.sum()
        return total, every

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Both gradients are there already; they are only scaled."""
        of_hidden, of_weight = ctx.saved_tensors
        return of_hidden * scale.to(of_hidden.dtype), (of_weight * scale).to(ctx.dtype), None, None, None


def _chunk(hidden: Tensor, weight: Tensor, labels: Tensor, z_loss: float) -> tuple[Tensor, Tensor, Tensor]:
    """Nats (rows,), sum of ln(Z)^2 of scored rows, and the gradient of the sum by the logits (rows, V)."""
    scored, wanted = labels != IGNORED, labels.clamp(min=0)[:, None]
    logits = functional.linear(hidden, weight).float()
    log_z = torch.logsumexp(logits, dim=1)
    nats = torch.where(scored, log_z - logits.gather(1, wanted)[:, 0], 0.0)
    of_logits = torch.exp(logits - log_z[:, None])
    if z_loss:
        of_logits = of_logits * (1 + 2 * z_loss * log_z)[:, None]
    hit = torch.arange(weight.shape[0], device=weight.device) == wanted
    of_logits = ((of_logits - hit.float()) * scored[:, None]).to(hidden.dtype)
    return nats, torch.where(scored, log_z * log_z, 0.0).sum(), of_logits


def _rows_of_chunk(num_rows: int, most: int) -> int:
    """Rows of each chunk: as few chunks as hold `most` rows each, all but the last of one size."""
    chunks = -(-num_rows // max(1, min(most, num_rows)))
    return -(-num_rows // chunks)


class Loss(nn.Module):
    """What a model makes of a batch.

    The caller divides by the labels of the global batch, so that neither micro-batches nor workers change a mean.
    """

    def __init__(self, model: PreTrainedModel, z_loss: float = 0.0, *, scored_only: bool = False) -> None:
        """`scored_only`: logits are computed where something is asked for; to compile that, its number must not change.

        Where most positions are prompt or padding that is most of the work of a small model.
        """
        super().__init__()
        self.model: PreTrainedModel = model
        self.z_loss = z_loss
        self.scored_only = scored_only

    def forward(
        self,
        inputs: Tensor,
        labels: Tensor,
        positions: Tensor | None = None,
        encoder_inputs: Tensor | None = None,
        encoder_positions: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What training lowers, nats (and z-loss) summed over the batch, shape (); the model's own loss, 0 if it has
        none, shape (); and nats of each sample, shape (B,), without gradient. Shapes of what it takes as in Batch."""
        batch = Tensors(
            inputs=inputs,
            labels=labels,
            positions=positions,
            encoder_inputs=encoder_inputs,
            encoder_positions=encoder_positions,
        )
        output = features(self.model, batch)
        limit = LOGITS_BYTES[inputs.device.type]
        hidden, wanted = output.hidden.flatten(0, 1), labels.flatten()
        scored = (wanted != IGNORED).nonzero()[:, 0] if self.scored_only else None
        if scored is not None:
            scored = scored if len(scored) else scored.new_zeros(1)  # one that is not asked for adds nothing
            hidden, wanted = hidden[scored], wanted[scored]
        total, nats = FusedLoss.apply(  # type: ignore[no-untyped-call]
            hidden, output_weight(self.model), wanted, self.z_loss, limit
        )
        if scored is not None:
            nats = torch.zeros(labels.numel(), device=nats.device).index_put((scored,), nats)
        auxiliary = total.new_zeros(()) if output.auxiliary is None else output.auxiliary
        return total, auxiliary, nats.view(labels.shape).sum(dim=1)


@torch.no_grad()
def mean_nats(model: PreTrainedModel, batches: Iterable[Batch]) -> float | None:
    """Mean nats of the labels of some batches, with the weights as they are; None without a label."""
    training, loss = model.training, Loss(model.eval(), scored_only=True)
    total, labels = 0.0, 0
    for batch in batches:
        if batch.num_labels:
            named = {name: getattr(batch, name) for name in Tensors.__dataclass_fields__}
            arrays = {name: np.ascontiguousarray(each) for name, each in named.items() if each is not None}
            total += float(loss(**{name: torch.from_numpy(each).to(model.device) for name, each in arrays.items()})[0])
            labels += batch.num_labels
    model.train(training)
    return total / labels if labels else None
