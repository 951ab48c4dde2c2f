"""Fine-tuning for so many seconds: the stage sft's own loop against TRL's SFTTrainer on the same conversations.

The figure is useful tokens, those of conversations and not of padding, a second of all the time that training takes:
compilation included, loading the model and preparing the data not. Both in float32, at one learning rate, without
replay. The model is random, of the size that the smoke profile makes. Conversations have the lengths of the
curriculum's tasks and, every tenth, of a function of the corpus; their tokens are drawn unevenly, so that there is
something to learn.

    trl          SFTTrainer as it comes: 8 conversations padded to the longest, blocks computed again in the backward
                 pass. Only its bfloat16, which processors without it imitate, is left out
    trl_packed   the same as its documentation tunes it: packed rows, blocks kept
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Comparison, Outcome
from components.alignment.curriculum.levels import LEVELS
from components.alignment.curriculum.tasks import tasks
from components.training.config import PlanConfig
from components.training.engine.model.architectures import build
from components.training.plan import shape_for

VOCABULARY_SIZE = 4096
FIRST_ORDINARY = 16
MODEL, CONVERSATIONS, SECONDS = "model", "conversations.json", "seconds.json"
NUM_CONVERSATIONS = 3000
CHARACTERS_PER_TOKEN = 3.4  # of the smoke profile's vocabulary on such tasks
LONGEST_FUNCTION_TOKENS = 160
ROW_TOKENS, BATCH_ROWS = 256, 5
LEARNING_RATE = 1e-3


def comparison(seconds: float, goal: float) -> Comparison:
    """The comparison of runs of one length."""
    return Comparison(
        name=f"fine-tuning of {seconds:g} s",
        unit="useful tokens/s",
        peers={"trl": goal, "trl_packed": 1.0},
        peers_in_our_environment=True,
    )


def prepare(folder: Path, seconds: float) -> None:
    """Write the model, the conversations (ids, and how many of them are the prompt) and the seconds of a run."""
    config = PlanConfig()
    build(shape_for(config, config.ladder[0], VOCABULARY_SIZE), 0, 0).float().save_pretrained(folder / MODEL)
    random = np.random.default_rng(0)
    likely = 1 / np.arange(1, VOCABULARY_SIZE - FIRST_ORDINARY + 1)
    conversations = []
    for number, task in zip(range(NUM_CONVERSATIONS), tasks(LEVELS, 0), strict=False):
        lengths = [1 + int(len(text) / CHARACTERS_PER_TOKEN) for text in (task.prompt, task.answer)]
        if number % 10 == 9:
            lengths = (random.integers(16, LONGEST_FUNCTION_TOKENS, size=2) // 2).tolist()
        ids = FIRST_ORDINARY + random.choice(len(likely), size=sum(lengths), p=likely / likely.sum())
        conversations.append({"ids": ids.tolist(), "prompt": lengths[0]})
    (folder / CONVERSATIONS).write_text(json.dumps(conversations), encoding="utf-8")
    (folder / SECONDS).write_text(json.dumps(seconds), encoding="utf-8")


def read(folder: Path) -> tuple[list[dict[str, Any]], float]:
    """The conversations and the seconds of a run."""
    texts = [(folder / name).read_text(encoding="utf-8") for name in (CONVERSATIONS, SECONDS)]
    return json.loads(texts[0]), json.loads(texts[1])


def outcome(useful_tokens: int, seconds: float, losses: list[float]) -> Outcome:
    """Of one side."""
    answer = {"losses": [losses[0], losses[-1]], "seconds": seconds, "threads": len(os.sched_getaffinity(0))}
    return Outcome(figure=useful_tokens / seconds, answer=answer)


def agree(folder: Path, ours: dict[str, Any], peer: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError unless both have learned."""
    for side in (ours, peer):
        if not side["losses"][-1] < side["losses"][0]:
            raise ValueError(f"the loss went from {side['losses'][0]:.3f} to {side['losses'][-1]:.3f}: nothing learned")
    return {"ours": ours, "peer": peer}
