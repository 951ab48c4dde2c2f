"""The input of both sides: a random model and random prompts."""

import json
from pathlib import Path

import numpy as np

from benchmarks.alignment.generation import LONGEST_TOKENS, MODEL, PROMPTS, SHORTEST_TOKENS
from components.training.config import PlanConfig
from components.training.engine.model.architectures import build
from components.training.plan import shape_for

VOCABULARY_SIZE = 4096


def prepare(folder: Path, batch: int) -> None:
    """Write model/ and prompts.json."""
    config = PlanConfig()
    model = build(shape_for(config, config.ladder[0], VOCABULARY_SIZE), 0, 0)
    model.float().save_pretrained(folder / MODEL)
    random = np.random.default_rng(0)
    lengths = random.integers(SHORTEST_TOKENS, LONGEST_TOKENS, size=batch, endpoint=True)
    prompts = [random.integers(0, VOCABULARY_SIZE, length).tolist() for length in lengths]
    (folder / PROMPTS).write_text(json.dumps(prompts), encoding="utf-8")
