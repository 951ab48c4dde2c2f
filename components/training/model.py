"""From a shape to a transformers model, initialised for fast training.

Imports transformers' modules one by one, so that a type checker and a reader see what is used.
"""

import torch
from transformers.modeling_utils import PreTrainedModel
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaForCausalLM
from transformers.models.qwen3.configuration_qwen3 import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM

from components.training.shape import Shape

CONFIGS = {"llama": LlamaConfig, "qwen3": Qwen3Config}
MODELS = {"llama": LlamaForCausalLM, "qwen3": Qwen3ForCausalLM}
# Matrices that write into the residual stream: at zero a new block is the identity (nanochat, modded-nanogpt).
RESIDUAL_WRITERS = ("o_proj.weight", "down_proj.weight")
# Below this length a materialised score matrix, fused by the compiler, beats the CPU's flash kernel, whose backward
# took 21 % of a step at T = 256.
FLASH_FROM_TOKENS = 1024


def build(shape: Shape, seed: int, end_of_text_id: int) -> PreTrainedModel:
    """A new model in float32. The same shape and seed give the same weights."""
    config = CONFIGS[shape.architecture](
        vocab_size=shape.vocabulary_size,
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        head_dim=shape.head_width,
        max_position_embeddings=shape.context,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=shape.tied,
        bos_token_id=None,
        eos_token_id=end_of_text_id,
        pad_token_id=None,
        use_cache=False,
        attn_implementation="eager" if shape.context < FLASH_FROM_TOKENS else "sdpa",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODELS[shape.architecture](config)
        initialise(model)
    return model


@torch.no_grad()
def initialise(model: PreTrainedModel) -> None:
    """Uniform hidden matrices of variance 1 / fan-in, zero residual writers, small output embedding.

    The input embedding is N(0, 1) when it is not also the output embedding, else N(0, 0.02).
    """
    tied = model.config.tie_word_embeddings
    for name, parameter in model.named_parameters():
        if name.endswith("embed_tokens.weight"):
            torch.nn.init.normal_(parameter, std=0.02 if tied else 1.0)
        elif name.endswith("lm_head.weight"):
            torch.nn.init.normal_(parameter, std=0.001)
        elif name.endswith(RESIDUAL_WRITERS):
            torch.nn.init.zeros_(parameter)
        elif parameter.ndim == 2:
            bound = (3 / parameter.shape[1]) ** 0.5
            torch.nn.init.uniform_(parameter, -bound, bound)
