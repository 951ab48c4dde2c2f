"""The input of both sides: the model, and prompts of different lengths."""

import json
from pathlib import Path

import numpy as np

from benchmarks.evaluation import given
from benchmarks.evaluation.generation import LONGEST_TOKENS, PROMPTS, SHORTEST_TOKENS

PROMPTS_FILE = "prompts.json"


def prepare(folder: Path) -> None:
    """Write model/ and prompts.json: the first tokens of held-out documents, from <|endoftext|> on."""
    given.prepare(folder)
    documents = [each for each in given.held_out(folder) if len(each) >= LONGEST_TOKENS]
    lengths = np.random.default_rng(0).integers(SHORTEST_TOKENS, LONGEST_TOKENS, size=PROMPTS, endpoint=True)
    starts = [(number // len(documents)) * LONGEST_TOKENS for number in range(PROMPTS)]
    prompts = [
        [given.END_OF_TEXT_ID, *documents[number % len(documents)][start : start + length - 1]]
        for number, (start, length) in enumerate(zip(starts, lengths.tolist(), strict=True))
    ]
    (folder / PROMPTS_FILE).write_text(json.dumps(prompts), encoding="utf-8")
