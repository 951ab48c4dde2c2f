"""A tiny random model that a real engine loads, made without torch."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from components.core import artifact
from components.core.config import StepConfig
from components.tokens import vocabulary

CONTEXT_TOKENS = 128
HIDDEN, LAYERS, HEADS, KV_HEADS, INNER = 32, 2, 4, 2, 64
TEXTS = [
    "def add(a, b):\n    return a + b\n",
    "for name in names:\n    print(name)\n",
    "class Point:\n    x: int = 0\n",
]


class RandomConfig(StepConfig):
    """Parameters of a random model."""

    seed: int = 0


def _weights(seed: int, vocabulary_size: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    head = HIDDEN // HEADS

    def matrix(*shape: int) -> np.ndarray:
        return generator.normal(0, 0.2, shape).astype(np.float32)

    weights = {"model.embed_tokens.weight": matrix(vocabulary_size, HIDDEN), "model.norm.weight": np.ones(HIDDEN, "f4")}
    for layer in range(LAYERS):
        name = f"model.layers.{layer}."
        for part, rows in (("q", HEADS * head), ("k", KV_HEADS * head), ("v", KV_HEADS * head), ("o", HIDDEN)):
            weights[f"{name}self_attn.{part}_proj.weight"] = matrix(rows, HIDDEN)
        weights[f"{name}mlp.gate_proj.weight"] = matrix(INNER, HIDDEN)
        weights[f"{name}mlp.up_proj.weight"] = matrix(INNER, HIDDEN)
        weights[f"{name}mlp.down_proj.weight"] = matrix(HIDDEN, INNER)
        weights[f"{name}input_layernorm.weight"] = np.ones(HIDDEN, "f4")
        weights[f"{name}post_attention_layernorm.weight"] = np.ones(HIDDEN, "f4")
    return weights


def write_random_model(out: Path, seed: int, *, hidden_act: str = "silu") -> Path:
    """A Llama of a few thousand random parameters with a tokenizer, as an artifact."""
    with artifact.create(
        out, stage="pretrain", config=RandomConfig(seed=seed), inputs=[], code=Path(__file__)
    ) as draft:
        tokenizer = vocabulary.learn(TEXTS * 50, 300)
        vocabulary.write(tokenizer, draft.path)
        size = tokenizer.get_vocab_size()
        save_file(_weights(seed, size), draft.path / "model.safetensors", metadata={"format": "pt"})
        config = {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": size,
            "hidden_size": HIDDEN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS,
            "head_dim": HIDDEN // HEADS,
            "intermediate_size": INNER,
            "hidden_act": hidden_act,
            "max_position_embeddings": CONTEXT_TOKENS,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "tie_word_embeddings": True,
        }
        (draft.path / "config.json").write_text(json.dumps(config))
    return out
