"""Learning rates step by step, as they were when pretraining and tuning had a schedule each: rates.json."""

import json
from pathlib import Path

from pydantic import BaseModel


class Recorded(BaseModel):
    """One run: what was decided in it, and the share of the peak rate at each step."""

    decisions: list[tuple[int, int]]
    rates: list[float]


def recorded(area: str, name: str) -> Recorded:
    """One run of `pretraining` or `tuning`."""
    runs = json.loads(Path(__file__).with_suffix(".json").read_bytes())
    return Recorded.model_validate(runs[area][name])
