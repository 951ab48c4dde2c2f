"""From a batch to features: how each kind of model is called. Only torch and transformers.

Covers: any model of transformers whose logits are its features times its output embedding (`features_match` says
whether they are), experts' balance, T5's division before its output, pieces of documents that do not see each other.
Not covered: pieces that must not see each other in a model with a recurrent state (bamba): transformers resets that
state inside a row with CUDA kernels alone, so the planner refuses it.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_utils import PreTrainedModel

from components.training.engine.model.masks import additive, allowed, bounds_of
from components.training.engine.model.shape import kind_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensors:
    """A Batch on the model's device, without its sources; same names and shapes. Without positions the pieces of a row
    see each other."""

    inputs: Tensor
    labels: Tensor
    positions: Tensor | None = None
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
    if batch.encoder_inputs is not None:
        return _encoder_decoder(model, batch)
    coefficient = balance_of(model)
    extra = {"output_router_logits": True} if coefficient else {}
    extra |= {} if batch.positions is None else _apart(model, batch.positions)
    output = model.base_model(input_ids=batch.inputs, **({"use_cache": False} | extra))
    balance = None
    if coefficient:
        config = model.config
        balance = coefficient * balance_loss(output.router_logits, config.num_experts_per_tok)
    head = getattr(model, "head", None)  # of a masked language model, between the last block and the output
    hidden = output.last_hidden_state if head is None else head(output.last_hidden_state)
    return Features(hidden=hidden, auxiliary=balance)


def _encoder_decoder(model: PreTrainedModel, batch: Tensors) -> Features:
    base = model.base_model if hasattr(model.base_model, "encoder") else model
    masks: dict[str, Tensor | None] = {"encoder": None, "decoder": None, "between": None}
    if batch.positions is not None and batch.encoder_positions is not None:
        masks = {
            "encoder": additive(allowed(batch.encoder_positions), model.dtype),
            "decoder": additive(allowed(batch.positions, causal=True), model.dtype),
            "between": additive(allowed(batch.positions, batch.encoder_positions), model.dtype),
        }
    encoded = base.encoder(input_ids=batch.encoder_inputs, attention_mask=masks["encoder"]).last_hidden_state
    hidden = base.decoder(
        input_ids=batch.inputs,
        attention_mask=masks["decoder"],
        encoder_hidden_states=encoded,
        encoder_attention_mask=masks["between"],
        use_cache=False,
    ).last_hidden_state
    if getattr(model.config, "scale_decoder_outputs", False):
        hidden = hidden * model.config.d_model**-0.5
    return Features(hidden=hidden)


def _apart(model: PreTrainedModel, positions: Tensor) -> dict[str, Any]:
    """Arguments that keep the pieces of a row from seeing each other.

    From position_ids alone transformers builds the block-diagonal causal mask of a decoder, for eager, sdpa and flex
    attention; flash attention asks for the bounds when there is more than one row.
    """
    if kind_of(model.config.model_type) == "encoder":
        same = allowed(positions)
        order = torch.arange(positions.shape[1], device=positions.device)
        near = (order[:, None] - order[None, :]).abs() <= model.config.sliding_window
        masks = {"full_attention": same, "sliding_attention": same & near}
        return {"attention_mask": {name: additive(mask, model.dtype) for name, mask in masks.items()}}
    if not model.config._attn_implementation.startswith("flash_attention"):
        return {"position_ids": positions}
    bounds, longest = bounds_of(positions), positions.shape[1]
    lengths = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": longest, "max_length_k": longest}
    return {"position_ids": positions, **lengths}


def output_weight(model: PreTrainedModel) -> Tensor:
    """The output embedding, shape (V, D) with V tokens."""
    weight: Tensor = model.get_output_embeddings().weight
    return weight


def balance_of(model: PreTrainedModel) -> float:
    """The weight of the loss that spreads tokens over experts; 0 for a model without."""
    return float(getattr(model.config, "router_aux_loss_coef", 0.0) or 0.0) if _has_experts(model) else 0.0


def balance_loss(router_logits: tuple[Tensor, ...], experts_per_token: int) -> Tensor:
    """experts * sum over experts of (share of tokens that pass it) * (mean probability), as the mean over blocks; equal
    to `experts_per_token` when tokens are spread evenly. router_logits: (B T, E) of each block.

    Fedus et al. 2021 (Switch Transformer, arXiv:2101.03961), equations 4 to 6; block by block, where transformers'
    own load_balancing_loss_func adds the blocks up before it multiplies, so that two blocks can hide each other.
    """
    losses = []
    for logits in router_logits:
        probabilities = functional.softmax(logits.float(), dim=-1)
        chosen = torch.topk(probabilities, experts_per_token, dim=-1).indices
        passed = torch.zeros_like(probabilities).scatter(-1, chosen, 1.0).mean(dim=0)
        losses.append(probabilities.shape[-1] * (passed * probabilities.mean(dim=0)).sum())
    return torch.stack(losses).mean()


@torch.no_grad()
def features_match(model: PreTrainedModel) -> bool:
    """Whether the model's logits are its features times its output embedding: no scale, cap or bias in between."""
    tokens = torch.arange(8, device=model.device)[None] % model.config.vocab_size
    batch = Tensors(inputs=tokens, labels=tokens, positions=tokens)
    training = model.training
    wanted = model.eval()(input_ids=tokens).logits.float()
    logits = functional.linear(features(model, batch).hidden, output_weight(model)).float()
    model.train(training)
    return bool(torch.allclose(logits, wanted, rtol=1e-3, atol=1e-3))


def _has_experts(model: nn.Module) -> bool:
    return hasattr(model.config, "num_experts_per_tok")
