"""Causal attention that no mask slows down. Only torch and transformers.

With torch before 2.14 transformers cannot tell compiling from exporting and hands compiled models an explicit causal
mask; scaled_dot_product_attention then takes neither its flash kernel nor cuDNN's. Where every row is one piece that
mask says what `is_causal` says, so it need not be made.
"""

from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface, PreTrainedModel

from components.training.engine.model.shape import kind_of

CAUSAL = "sdpa_causal"


def _no_mask(*_: object, **__: object) -> None:
    """What a model hands to its attention."""


AttentionInterface.register(CAUSAL, sdpa_attention_forward)
AttentionMaskInterface.register(CAUSAL, _no_mask)


def leave_mask_out(model: PreTrainedModel) -> None:
    """For a decoder whose rows are one piece each; any other model, or one that does not use `sdpa`, stays as it is."""
    if kind_of(model.config.model_type) == "decoder" and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(CAUSAL)
