"""The models of the peers, by transformers' own defaults where a peer says nothing else."""

from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaForCausalLM

from benchmarks.training.corpus import SEQUENCE_LENGTH


def llama(layers: int, width: int, *, heads: int = 2, key_value_heads: int = 1) -> LlamaForCausalLM:
    """The shape that ours trains, with transformers' own initialisation."""
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=width,
        intermediate_size=int(width * 8 / 3) // 32 * 32,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=SEQUENCE_LENGTH,
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config)


def flops_per_token(layers: int, width: int, matrix_parameters: int) -> float:
    """6 per matrix parameter (the output embedding included), and attention's 12 * layers * width * T."""
    return 6.0 * matrix_parameters + 12.0 * layers * width * SEQUENCE_LENGTH


def matrix_parameters(model: LlamaForCausalLM) -> int:
    """All but the input embedding and the norms."""
    return sum(each.numel() for name, each in model.named_parameters() if each.ndim == 2 and "embed_tokens" not in name)
