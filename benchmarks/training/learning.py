"""What the comparisons of learning share. Light: the harness imports it."""

import importlib
from pathlib import Path
from typing import Any

SECONDS = 150.0
FLOPS = 1.5e13


def prepare(folder: Path) -> None:
    """Tokens of installed Python."""
    importlib.import_module("benchmarks.training.corpus").prepare(folder)


def agree(folder: Path, ours: dict[str, Any], peer: dict[str, Any]) -> dict[str, Any]:
    """What each side read; nothing can disagree, as all are measured by one function on the same documents."""
    return {"tokens": [ours["tokens"], peer["tokens"]], "parameters": ours["parameters"]}
