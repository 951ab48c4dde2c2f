"""The input of all sides: a new model of 8 layers of 256 and windows of real tokens."""

from pathlib import Path

import numpy as np

from benchmarks.training import corpus
from components.training.engine.model.architectures import build
from components.training.engine.model.shape import Shape, shape_of

STEPS = 25
UNTIMED_STEPS = 5


def shape() -> Shape:
    """7.8M parameters, of which 6.7M are multiplied with each token."""
    return shape_of(
        architecture="qwen3",
        vocabulary_size=4096,
        context=corpus.SEQUENCE_LENGTH,
        layers=8,
        width=256,
        head_width=64,
        queries_per_key_value=2,
        rope_theta=10_000.0,
        tied=False,
    )


def prepare(folder: Path) -> None:
    """Write model/ and windows.npy, shape (steps, B, T + 1)."""
    corpus.prepare(folder)
    build(shape(), 0, 0).save_pretrained(folder / "model")
    np.save(folder / "windows.npy", corpus.batches(folder, STEPS + UNTIMED_STEPS, 0))
