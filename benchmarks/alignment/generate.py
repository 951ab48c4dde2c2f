"""transformers' own `generate` on the whole batch, padded on the left, with its cache of keys and values."""

import os
from pathlib import Path

import torch
from transformers.generation.configuration_utils import GenerationConfig
from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM

from benchmarks.alignment.generation import MODEL, NEW_TOKENS, measured
from benchmarks.harness import Outcome


@torch.inference_mode()
def run(folder: Path) -> Outcome:
    """New tokens a second."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = Qwen3ForCausalLM.from_pretrained(folder / MODEL, dtype=torch.float32).eval()
    # The configuration of a model in training says that it keeps no cache, which `generate` would follow.
    config = GenerationConfig(
        max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None, pad_token_id=0, use_cache=True
    )

    def write(prompts: list[list[int]]) -> list[list[int]]:
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(each)) + each for each in prompts])
        mask = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each in prompts])
        written = model.generate(ids, attention_mask=mask, generation_config=config)
        return [row[longest:].tolist() for row in written]

    return measured(folder, write)
