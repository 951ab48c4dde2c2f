"""From a batch to features: how each kind of model is called. Only torch and transformers."""

from dataclasses import dataclass

from torch import Tensor
from transformers.modeling_utils import PreTrainedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensors:
    """A Batch on the model's device, without its sources; same names and shapes."""

    inputs: Tensor
    labels: Tensor
    positions: Tensor
    encoder_inputs: Tensor | None = None
    encoder_positions: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What the last block says. D features.

    hidden      (B, T, D), to be multiplied with `output_weight(model)`
    auxiliary   a loss of the model's own in nats per position (balance of experts), already weighted; None without one
    """

    hidden: Tensor
    auxiliary: Tensor | None = None


def features(model: PreTrainedModel, batch: Tensors) -> Features:
    """Run the model up to its output embedding."""
    return Features(hidden=model.model(input_ids=batch.inputs, use_cache=False).last_hidden_state)


def output_weight(model: PreTrainedModel) -> Tensor:
    """The output embedding, shape (V, D) with V tokens."""
    weight: Tensor = model.get_output_embeddings().weight
    return weight
