"""From a shape to a transformers model, initialised for fast training.

Imports transformers' modules one by one, so that a type checker and a reader see what is used.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.models.bamba.configuration_bamba import BambaConfig
from transformers.models.bamba.modeling_bamba import BambaForCausalLM
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaForCausalLM
from transformers.models.mixtral.configuration_mixtral import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralForCausalLM
from transformers.models.modernbert.configuration_modernbert import ModernBertConfig
from transformers.models.modernbert.modeling_modernbert import ModernBertForMaskedLM
from transformers.models.qwen3.configuration_qwen3 import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM
from transformers.models.t5.configuration_t5 import T5Config
from transformers.models.t5.modeling_t5 import T5ForConditionalGeneration

from components.training.engine.model.roles import roles_of
from components.training.engine.model.shape import (
    CONVOLUTION_TOKENS,
    GLOBAL_EVERY,
    LOCAL_TOKENS,
    MIXER_EXPANSION,
    RELATIVE_BUCKETS,
    STATE_WIDTH,
    Shape,
)

# Matrices that write into the residual stream: at zero a new block is the identity (nanochat, modded-nanogpt).
RESIDUAL_WRITERS = (
    *("o_proj.weight", "down_proj.weight", "experts.down_proj", "mamba.out_proj.weight"),
    *("attn.Wo.weight", "mlp.Wo.weight"),  # modernbert
    *("Attention.o.weight", "DenseReluDense.wo.weight"),  # t5
)
# Below this length a materialised score matrix, fused by the compiler, beats the CPU's flash kernel, whose backward
# took 21 % of a step at T = 256.
FLASH_FROM_TOKENS = 1024
# Steps of time that a new Mamba2 mixer takes, log-uniform, and its rates of decay (Dao and Gu 2024, reference code).
TIME_STEPS = (1e-3, 1e-1)
DECAY_RATES = (1.0, 16.0)


def build(shape: Shape, seed: int, end_of_text_id: int) -> PreTrainedModel:
    """A new model in float32. The same shape and seed give the same weights."""
    config_of, model_type = FAMILIES[shape.architecture]
    config = config_of(shape, end_of_text_id)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_type(config)
        initialise(model)
    return model


def _common(shape: Shape, end_of_text_id: int) -> dict[str, Any]:
    """What every configuration is given."""
    return {
        "vocab_size": shape.vocabulary_size,
        "tie_word_embeddings": shape.tied,
        "bos_token_id": None,
        "eos_token_id": end_of_text_id,
        "pad_token_id": None,
        "use_cache": False,
        "attn_implementation": attention_of(shape.context),
    }


def attention_of(context: int) -> str:
    """transformers' name of the attention that is fastest at a length."""
    return "eager" if context < FLASH_FROM_TOKENS else "sdpa"


def _sizes(shape: Shape) -> dict[str, Any]:
    return {
        "hidden_size": shape.width,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": shape.context,
    }


def _decoder(shape: Shape, end_of_text_id: int) -> dict[str, Any]:
    """What llama and its kin share."""
    return {
        **_common(shape, end_of_text_id),
        **_sizes(shape),
        "num_key_value_heads": shape.key_value_heads,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
    }


def _llama(shape: Shape, end_of_text_id: int) -> PreTrainedConfig:
    return LlamaConfig(**_decoder(shape, end_of_text_id), head_dim=shape.head_width)


def _qwen3(shape: Shape, end_of_text_id: int) -> PreTrainedConfig:
    return Qwen3Config(**_decoder(shape, end_of_text_id), head_dim=shape.head_width)


def _mixtral(shape: Shape, end_of_text_id: int) -> PreTrainedConfig:
    return MixtralConfig(
        **_decoder(shape, end_of_text_id),
        head_dim=shape.head_width,
        num_local_experts=shape.experts,
        num_experts_per_tok=shape.experts_per_token,
        router_aux_loss_coef=shape.balance,
    )


def _bamba(shape: Shape, end_of_text_id: int) -> PreTrainedConfig:
    return BambaConfig(
        **_decoder(shape, end_of_text_id),
        attn_layer_indices=list(shape.attention_layers),
        mamba_n_heads=shape.mixer_heads,
        mamba_d_state=STATE_WIDTH,
        mamba_d_conv=CONVOLUTION_TOKENS,
        mamba_expand=MIXER_EXPANSION,
        # Without kernels a chunk costs its square: 64 tokens were the fastest at widths of 128 to 256.
        mamba_chunk_size=min(64, shape.context),
    )


def _modernbert(shape: Shape, end_of_text_id: int) -> PreTrainedConfig:
    rope = {"rope_type": "default", "rope_theta": shape.rope_theta}
    return ModernBertConfig(
        **(_common(shape, end_of_text_id) | {"bos_token_id": end_of_text_id}),
        **_sizes(shape),
        cls_token_id=end_of_text_id,
        sep_token_id=end_of_text_id,
        global_attn_every_n_layers=GLOBAL_EVERY,
        local_attention=LOCAL_TOKENS,
        rope_parameters={"full_attention": rope, "sliding_attention": rope},
        decoder_bias=False,
    )


def _t5(shape: Shape, end_of_text_id: int) -> PreTrainedConfig:
    return T5Config(
        **_common(shape, end_of_text_id),
        d_model=shape.width,
        d_kv=shape.head_width,
        d_ff=shape.feed_forward,
        num_layers=shape.layers,
        num_heads=shape.heads,
        relative_attention_num_buckets=RELATIVE_BUCKETS,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=end_of_text_id,
        n_positions=shape.context,
    )


FAMILIES: dict[str, tuple[Callable[[Shape, int], PreTrainedConfig], type[PreTrainedModel]]] = {
    "llama": (_llama, LlamaForCausalLM),
    "qwen3": (_qwen3, Qwen3ForCausalLM),
    "mixtral": (_mixtral, MixtralForCausalLM),
    "bamba": (_bamba, BambaForCausalLM),
    "modernbert": (_modernbert, ModernBertForMaskedLM),
    "t5": (_t5, T5ForConditionalGeneration),
}


@torch.no_grad()
def initialise(model: PreTrainedModel) -> None:
    """Uniform hidden matrices of variance 1 / fan-in, zero residual writers, small output embedding.

    The input embedding is N(0, 1) when it is not also the output embedding, else N(0, 0.02); T5's is N(0, 1), as it
    divides by the root of the width before its output. Vectors keep transformers' values but for Mamba2's.
    """
    roles = roles_of(model)
    divided = bool(getattr(model.config, "scale_decoder_outputs", False))
    for name, parameter in model.named_parameters():
        if roles[name] == "embedding":
            nn.init.normal_(parameter, std=1.0 if divided or not model.config.tie_word_embeddings else 0.02)
        elif roles[name] == "output":
            nn.init.normal_(parameter, std=0.001)
        elif name.endswith(RESIDUAL_WRITERS):
            nn.init.zeros_(parameter)
        elif roles[name] == "matrix":
            _spread(parameter, parameter.shape[-1])
    if model.config.model_type == "t5":
        _divide_queries(model)
    for module in model.modules():
        if hasattr(module, "A_log") and hasattr(module, "dt_bias"):
            _start_mixer(module)


def _spread(parameter: Tensor, inputs: int) -> None:
    """Uniform of variance 1 / inputs."""
    bound = math.sqrt(3 / inputs)
    nn.init.uniform_(parameter, -bound, bound)


def _divide_queries(model: PreTrainedModel) -> None:
    """T5 does not divide scores by the root of the head's width: its queries begin that much smaller."""
    for name, parameter in model.named_parameters():
        if name.endswith("Attention.q.weight"):
            parameter.div_(math.sqrt(model.config.d_kv))


def _start_mixer(mixer: Any) -> None:
    """Mamba2's own start: rates of decay, steps of time behind a softplus, and a convolution of plain torch's scale."""
    mixer.A_log.uniform_(*DECAY_RATES).log_()
    steps = torch.empty_like(mixer.dt_bias).uniform_(*map(math.log, TIME_STEPS)).exp()
    mixer.dt_bias.copy_(steps + torch.log(-torch.expm1(-steps)))
    _spread(mixer.conv1d.weight, 3 * mixer.conv1d.weight.shape[-1])
