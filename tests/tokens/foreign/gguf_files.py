"""Small checkpoints in llama.cpp's form, written as its converter does from Hugging Face directories."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def tiny_llama(vocabulary_size: int) -> LlamaForCausalLM:
    """Random weights, tied, two heads that share a key-value head."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_theta": 10000.0, "rope_type": "default"},
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def write_gguf(path: Path, model: LlamaForCausalLM, vocabulary: dict[str, Any], **changes: Any) -> Path:
    """A file of the model. `vocabulary` is the model part of a tokenizer.json whose first tokens are SPECIAL.

    changes     quantization, architecture, pre: what the file says beside the truth
    """
    config = model.config
    writer = gguf.GGUFWriter(path, changes.get("architecture", "llama"))
    writer.add_name("Tiny")
    if licence := changes.get("licence", "apache-2.0"):
        writer.add_license(licence)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(changes.get("layers", config.num_hidden_layers))
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    tokens = sorted(vocabulary["vocab"], key=vocabulary["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(changes.get("pre", "smollm"))
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in tokens])
    writer.add_token_merges([" ".join(each) for each in vocabulary["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    kind = changes.get("quantization", gguf.GGMLQuantizationType.F32)
    for name, weight in model.state_dict().items():
        if name != "lm_head.weight":
            _add(writer, name, weight.numpy(), config, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, name: str, weight: np.ndarray, config: LlamaConfig, kind: Any) -> None:
    """One weight under llama.cpp's name; q and k in its order of the rotary halves; matrices quantized."""
    stem = name.removesuffix(".weight")
    if stem.startswith("model.layers."):
        _, _, layer, part = stem.split(".", 3)
        stem = f"blk.{layer}.{NAMES[part]}"
        heads = {"self_attn.q_proj": config.num_attention_heads, "self_attn.k_proj": config.num_key_value_heads}
        if part in heads:
            rows = weight.shape[0] // heads[part] // 2
            weight = weight.reshape(heads[part], 2, rows, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
    else:
        stem = NAMES[stem]
    if weight.ndim == 2 and kind != gguf.GGMLQuantizationType.F32:
        writer.add_tensor(f"{stem}.weight", gguf.quants.quantize(weight, kind), raw_dtype=kind)
    else:
        writer.add_tensor(f"{stem}.weight", np.ascontiguousarray(weight))


def vocabulary_of(tokenizer_json: str) -> dict[str, Any]:
    """The model part of a tokenizer that was learned with SPECIAL first."""
    return dict(json.loads(tokenizer_json)["model"])
