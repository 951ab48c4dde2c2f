"""transformers' own `generate`, one prompt after the other, with its cache of keys and values."""

import json
import os
import time
from pathlib import Path

import torch
from transformers.generation.configuration_utils import GenerationConfig
from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM

from benchmarks.evaluation.generation import NEW_TOKENS
from benchmarks.harness import Outcome


def run(folder: Path) -> Outcome:
    """New tokens a second, once warm."""
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    prompts: list[list[int]] = json.loads((folder / "prompts.json").read_text())
    model = Qwen3ForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    config = GenerationConfig(max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None, pad_token_id=0)
    completions = []
    with torch.inference_mode():
        for each in prompts[:2]:
            model.generate(torch.tensor([each]), generation_config=config)
        started = time.perf_counter()
        for each in prompts:
            ids = torch.tensor([each])
            written = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
            completions.append(written[0, len(each) :].tolist())
        seconds = time.perf_counter() - started
    return Outcome(figure=sum(map(len, completions)) / seconds, answer={"completions": completions, "threads": threads})
