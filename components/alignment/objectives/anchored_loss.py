"""Cross-entropy on conversations, and on replayed windows the divergence from what the base says there. Plain torch.

A replayed window is there so that the model stays what it was. Its tokens as targets pull it to a new place, with the
noise of every token; the base's own distribution as the target gives no gradient at all where nothing has changed
(learning without forgetting: Li and Hoiem 2016, arXiv:1606.09282). KL(base || model) is summed over the positions that
have a label. Logits of at most LOGITS_BYTES exist at a time, of the model and of the base.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers import PreTrainedModel

from components.alignment.config import SftConfig
from components.alignment.objectives.tuning import load_model
from components.training.engine.batches.batch import IGNORED
from components.training.engine.model.forward import Features, Tensors, features, output_weight
from components.training.engine.model.loss import LOGITS_BYTES, FusedLoss
from components.training.engine.model.shape import kind_of
from components.training.engine.trainer import DTYPES


class Divergence(torch.autograd.Function):
    """KL(base || model) summed over N positions, shape (), and of each, shape (N,), which carries no gradient."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, base_hidden: Tensor, base_weight: Tensor, limit_bytes: int
    ) -> tuple[Tensor, Tensor]:
        """hidden (N, D), weight (V, D) of the model and of the base."""
        rows = max(1, limit_bytes // (2 * 4 * weight.shape[0]))
        nats, of_hidden = [], []
        of_weight = torch.zeros_like(weight, dtype=torch.float32)
        for part, base_part in zip(torch.split(hidden, rows), torch.split(base_hidden, rows), strict=True):
            log_probs = functional.linear(part, weight).float().log_softmax(dim=-1)
            wanted = functional.linear(base_part, base_weight).float().log_softmax(dim=-1)
            nats.append((wanted.exp() * (wanted - log_probs)).sum(dim=-1))
            of_logits = (log_probs.exp() - wanted.exp()).to(hidden.dtype)
            of_hidden.append(of_logits @ weight)
            of_weight += of_logits.mT @ part
        every = torch.cat(nats)
        ctx.save_for_backward(torch.cat(of_hidden), of_weight.to(weight.dtype))
        ctx.mark_non_differentiable(every)
        return every.sum(), every

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Both gradients are there already; they are only scaled."""
        of_hidden, of_weight = ctx.saved_tensors
        return of_hidden * scale.to(of_hidden.dtype), of_weight * scale.to(of_weight.dtype), None, None, None


class AnchoredLoss(nn.Module):
    """What fine-tuning with replay lowers; see the module. `base` is another model of the same kind, which stays."""

    def __init__(self, model: PreTrainedModel, base: PreTrainedModel, weight: float) -> None:
        """`weight` of a nat of divergence, beside a nat of an answer."""
        super().__init__()
        self.model: PreTrainedModel = model
        self.base = base.eval().requires_grad_(False)
        self.weight = weight

    def forward(
        self,
        inputs: Tensor,
        labels: Tensor,
        positions: Tensor | None = None,
        encoder_inputs: Tensor | None = None,
        encoder_positions: Tensor | None = None,
        *,
        anchored: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As Loss has them. anchored (B,): the rows that are compared with the base. The last figure has the nats of
        answers of other rows, and those of divergence of these."""
        batch = Tensors(
            inputs=inputs,
            labels=labels,
            positions=positions,
            encoder_inputs=encoder_inputs,
            encoder_positions=encoder_positions,
        )
        lowered: tuple[Tensor, Tensor, Tensor] = self._lowered(batch, anchored, features(self.model, batch))
        return lowered

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # the number of positions is never the same
    def _lowered(self, batch: Tensors, anchored: Tensor, output: Features) -> tuple[Tensor, Tensor, Tensor]:
        labels, hidden = batch.labels, output.hidden.flatten(0, 1)
        limit, flat = LOGITS_BYTES[labels.device.type], labels.flatten()
        kept = anchored[:, None].expand_as(labels).flatten()
        said, held = (((flat != IGNORED) & each).nonzero()[:, 0] for each in (~kept, kept))
        total, answers = FusedLoss.apply(  # type: ignore[no-untyped-call]
            *_some(hidden, output_weight(self.model), flat, said), 0.0, limit
        )
        nats = torch.zeros(labels.numel(), device=labels.device).index_put((said,), answers[: len(said)])
        if len(held):
            apart, divergences = self._divergence(batch, anchored, hidden[held], limit)
            total = total + self.weight * apart
            nats = nats.index_put((held,), divergences)
        auxiliary = total.new_zeros(()) if output.auxiliary is None else output.auxiliary
        return total, auxiliary, nats.view(labels.shape).sum(dim=1)

    def _divergence(self, batch: Tensors, anchored: Tensor, hidden: Tensor, limit: int) -> tuple[Tensor, Tensor]:
        """Of the labelled positions of the anchored rows, whose features are `hidden`; the base reads these rows."""
        rows = anchored.nonzero()[:, 0]
        own = {name: getattr(batch, name) for name in Tensors.__dataclass_fields__}
        chosen: dict[str, Any] = {name: None if each is None else each[rows] for name, each in own.items()}
        part = Tensors(**chosen)
        with torch.no_grad():
            base_hidden = features(self.base, part).hidden.flatten(0, 1)
        there = (part.labels != IGNORED).flatten()
        apart: tuple[Tensor, Tensor] = Divergence.apply(  # type: ignore[no-untyped-call]
            hidden, output_weight(self.model), base_hidden[there], output_weight(self.base), limit
        )
        return apart


def loss_of(config: SftConfig, model: PreTrainedModel, base: Path) -> AnchoredLoss | None:
    """The loss of fine-tuning where replay is anchored; None where a language model's own does."""
    if not (config.replay.anchor and config.replay.share):
        return None
    kind = kind_of(model.config.model_type)
    return AnchoredLoss(model, load_model(base, kind).to(DTYPES[config.precision]), config.replay.anchor)


def _some(hidden: Tensor, weight: Tensor, labels: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What FusedLoss takes; one position without a label where there are none, which adds nothing."""
    if not len(places):
        return hidden[:1], weight, labels.new_full((1,), IGNORED)
    return hidden[places], weight, labels[places]
