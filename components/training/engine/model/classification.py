"""The loss of a sequence classifier, in the place of a language model's. Only torch and transformers.

A batch's labels are of shape (B, 1), the number of each text's class, or (B, L), whether each of L labels holds. The
first piece of a row is its text; what lies behind it is padding.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_utils import PreTrainedModel

from components.training.engine.model.masks import piece_numbers


def class_logits(model: PreTrainedModel, inputs: Tensor, positions: Tensor) -> Tensor:
    """Logits of the classes in float32, shape (B, classes); inputs and positions (B, T)."""
    shown = (piece_numbers(positions) == 1).long()
    logits: Tensor = model(input_ids=inputs, attention_mask=shown).logits
    return logits.float()


class ClassificationLoss(nn.Module):
    """-ln p of each text's class, or of each label's truth; called and divided as `loss.Loss`."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model: PreTrainedModel = model

    def forward(self, inputs: Tensor, labels: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Nats summed over all labels, shape (); no loss of the model's own, shape (); and nats of each text, shape
        (B,), without gradient."""
        logits = class_logits(self.model, inputs, positions)
        if labels.shape[1] == 1:
            nats = functional.cross_entropy(logits, labels[:, 0], reduction="none")
        else:
            nats = functional.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none").sum(dim=1)
        total = nats.sum()
        return total, total.new_zeros(()), nats.detach()


@torch.no_grad()
def probabilities(model: PreTrainedModel, inputs: Tensor, positions: Tensor, *, several: bool) -> Tensor:
    """Of each class, shape (B, classes): they add up to 1, or each stands for itself where `several` may hold."""
    training = model.training
    logits = class_logits(model.eval(), inputs, positions)
    model.train(training)
    return logits.sigmoid() if several else logits.softmax(dim=1)
