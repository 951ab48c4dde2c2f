"""Bytes per token on documents that no vocabulary was learned from: our way of cutting a text against those of GPT-2
and GPT-4, with the same size, special tokens and sample.

Ours gives some of it away on purpose: the end of a line and an indentation are token boundaries, so that a cursor
stands between tokens (components.tokens.vocabulary says why), and digits stand alone.
"""

import importlib
from pathlib import Path
from typing import Any

from benchmarks.harness import Comparison

COMPARISON = Comparison(name="bytes per token", unit="bytes/token", peers={"gpt2": 0.95, "gpt4": 0.95})


def prepare(folder: Path) -> None:
    """What all sides read. Imported here: the peers' environment has no components."""
    importlib.import_module("benchmarks.tokens.vocabulary.given").prepare(folder)


def agree(folder: Path, ours: dict[str, Any], peer: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError unless both measured the same text with vocabularies of one size and lost none of it."""
    for name in ("bytes", "vocabulary_size", "lossless"):
        if ours[name] != peer[name]:
            raise ValueError(f"{name}: ours has {ours[name]}, the peer {peer[name]}")
    languages = ours["bytes_per_token"]
    return {
        "held_out_bytes": ours["bytes"],
        "vocabulary_size": ours["vocabulary_size"],
        "by_language": {name: (languages[name], peer["bytes_per_token"][name]) for name in languages},
        "train_cpu_seconds": (ours["cpu_seconds"], peer["cpu_seconds"]),
    }
