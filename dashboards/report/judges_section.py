"""The judges of a cycle's preferences on its page: what each said, and how far it can be believed.

Covers: judges that said nothing.  Not covered: agreement between judges, which judges.json has.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.alignment.rewards.ensemble import JUDGES

COLUMNS = {
    "kappa": "kappa with the verifier",
    "consistency": "survive the swap",
    "position_bias": "the first shown is better",
    "length_bias": "the longer is better",
    "self_bias": "its own is better",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeRow:
    """One judge: its verdicts by outcome, and (title, figure, interval and what the verifier says) of each column."""

    name: str
    outcomes: str
    is_left_out: bool
    cells: list[tuple[str, str, str]]


def judges(directory: Path) -> list[JudgeRow]:
    """A row for each judge of the artifact in `directory`. Raises ValueError where programs alone judged."""
    rows = [_row(each) for each in json.loads((directory / JUDGES).read_text(encoding="utf-8"))["judges"]]
    if not rows:
        raise ValueError("Programs alone judged the answers.")
    return rows


def _row(judge: Mapping[str, Any]) -> JudgeRow:
    counts = [f"{count:,} {outcome}" for outcome, count in judge["outcomes"].items() if count]
    cells = []
    for column, title in COLUMNS.items():
        estimate, verifier = judge[column], judge.get(f"{column}_of_verifier")
        if estimate is None:
            cells.append((title, "", ""))
            continue
        detail = f"{estimate['low']:.2f} to {estimate['high']:.2f}, n {estimate['n']:,}"
        if verifier is not None:
            detail += f"; verifier {verifier['value']:.2f}"
        cells.append((title, f"{estimate['value']:.2f}", detail))
    return JudgeRow(
        name=judge["judge"],
        outcomes=", ".join(counts) or "no pairs",
        is_left_out=judge["is_left_out"],
        cells=cells,
    )
