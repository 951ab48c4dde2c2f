"""What was predicted of planned runs, and what came of them: one JSON line a run, never rewritten.

The cycle adds a line when a run that had a prediction has ended; `overnight plan` shows them beside the next one.
"""

import json
import os
from pathlib import Path
from typing import Any

from components.core.artifact import Manifest
from components.training.config import Plan

FILE = "predictions.jsonl"


def outcome(plan: Plan, base: Manifest) -> dict[str, Any] | None:
    """The prediction beside what the run reached; None when there was no prediction, or the model has no such loss."""
    loss = base.statistics.get("validation_bits_per_byte")
    if plan.predicted is None or loss is None:
        return None
    expected = plan.predicted
    return {
        "model": base.digest,
        "parameters": base.statistics["parameters"],
        "planned_tokens": plan.expected_tokens,
        "tokens": base.statistics["tokens"],
        "predicted": expected.value,
        "low": expected.low,
        "high": expected.high,
        "found": loss,
        "inside": expected.low <= loss <= expected.high,
    }


def keep(reports: Path, row: dict[str, Any]) -> bool:
    """Add an outcome unless this model's is there. True when it was added."""
    if any(each["model"] == row["model"] for each in read(reports)):
        return False
    reports.mkdir(parents=True, exist_ok=True)
    with (reports / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return True


def read(reports: Path) -> list[dict[str, Any]]:
    """All outcomes, the oldest first; a line that was cut off by a kill is passed over."""
    path = reports / FILE
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
