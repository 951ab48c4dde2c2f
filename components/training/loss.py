"""From features to losses per token. Only torch and transformers."""

from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_utils import PreTrainedModel

from components.training.batch import IGNORED
from components.training.forward import Tensors, features, output_weight


def token_nats(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """-ln p of each label in float32, shape (B, T), 0 where a label is IGNORED. hidden (B, T, D), weight (V, D)."""
    logits = functional.linear(hidden, weight).float()
    found = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none")
    return found.view(labels.shape)


class Loss(nn.Module):
    """What a model makes of a batch: nats of each sample, shape (B,), and the model's own loss (scalar, 0 if none).

    The caller divides by the labels of the global batch, so that neither micro-batches nor workers change a mean.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model: PreTrainedModel = model

    def forward(
        self,
        inputs: Tensor,
        labels: Tensor,
        positions: Tensor | None = None,
        encoder_inputs: Tensor | None = None,
        encoder_positions: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Shapes as in Batch."""
        batch = Tensors(
            inputs=inputs,
            labels=labels,
            positions=positions,
            encoder_inputs=encoder_inputs,
            encoder_positions=encoder_positions,
        )
        found = features(self.model, batch)
        nats = token_nats(found.hidden, output_weight(self.model), labels).sum(dim=1)
        return nats, nats.new_zeros(()) if found.auxiliary is None else found.auxiliary
