"""Compare one of our parts with a peer: interleaved runs, each side in a process of its own, medians and spread.

An area is a package `benchmarks.<area>`, a comparison a package in it with COMPARISON, `prepare(folder)` (writes the
input both sides read), `agree(folder, ours, peer)` (the answers side by side; raises ValueError when they differ more
than the comparison allows), and a module for each side, ours.py and <peer>.py, with `run(folder) -> Outcome`.
Sides time themselves, without start-up and imports: what is compared is the work.
"""

import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUN = "run.json"  # in the folder of a comparison: the number of the run, from 0, for sides that draw by a seed
PEERS = ROOT / ".venv" / "peers" / "bin" / "python"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What is compared. `unit` is of the figure that a side reports: larger is better where it ends in /s or /token,
    smaller is better in s. `peers` are modules beside ours.py, each with the ratio aimed at. `limit` is what the
    machine could give at most, in the same unit, where that is known; ours may measure it in its run, as "limit" of its
    answer. Peers have an environment of their own unless what they need is in ours."""

    name: str
    unit: str
    peers: dict[str, float]
    limit_name: str | None = None
    limit: float | None = None
    peers_in_our_environment: bool = False

    @property
    def larger_is_better(self) -> bool:
        """Whether the figure is a rate, or what a token stands for."""
        return self.unit.endswith(("/s", "/token"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One run of one side: its figure, and what it answered (JSON) for `agree`."""

    figure: float
    answer: dict[str, Any] = field(default_factory=dict)


def comparisons(area: str) -> list[str]:
    """The packages of an area, by name. Raises ValueError for an area without any."""
    found = sorted(path.parent.name for path in (ROOT / "benchmarks" / area).glob("*/__init__.py"))
    if not found:
        there = sorted({path.parent.parent.name for path in (ROOT / "benchmarks").glob("*/*/__init__.py")})
        raise ValueError(f"area {area!r} has no comparison; there are: {', '.join(there)}")
    return [f"benchmarks.{area}.{name}" for name in found]


def compare(package: str, runs: int) -> list[dict[str, Any]]:
    """Rows of the report for one package, one per peer."""
    module = importlib.import_module(package)
    comparison: Comparison = module.COMPARISON
    sides = ["ours", *comparison.peers]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        module.prepare(folder)
        outcomes: dict[str, list[Outcome]] = {side: [] for side in sides}
        for number in range(runs):
            (folder / RUN).write_text(json.dumps(number), encoding="utf-8")
            for side in sides:
                ours = side == "ours" or comparison.peers_in_our_environment
                outcomes[side].append(run_side(package, side, folder, ours=ours))
                figure = outcomes[side][-1].figure  # told at once: a later side that fails takes no other's with it
                print(
                    f"run {number + 1} of {runs}, {side}: {figure:.4g} {comparison.unit}", file=sys.stderr, flush=True
                )
        return [
            row(comparison, peer, outcomes["ours"], outcomes[peer])
            | {"agreement": module.agree(folder, outcomes["ours"][-1].answer, outcomes[peer][-1].answer)}
            for peer in comparison.peers
        ]


def run_side(package: str, side: str, folder: Path, *, ours: bool) -> Outcome:
    """One side in a process of its own, in our environment or, where there is one, in that of the peers."""
    python = sys.executable if ours or not PEERS.exists() else str(PEERS)
    answer = folder / "answer.json"
    command = [python, "-m", "benchmarks.side", f"{package}.{side}", str(folder), str(answer)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip() or "no output").splitlines()[-1]
        raise RuntimeError(f"{package}.{side} failed: {last}")
    return Outcome(**json.loads(answer.read_text(encoding="utf-8")))


def row(comparison: Comparison, peer: str, ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> dict[str, Any]:
    """One line of reports/bench/<area>.json: medians, their ratio (ours better = above 1), and the spread of each side
    as (largest - smallest) / median."""
    mine, other = (statistics.median(each.figure for each in side) for side in (ours, theirs))
    return {
        "name": comparison.name,
        "unit": comparison.unit,
        "ours": mine,
        "peer_name": peer,
        "peer": other,
        "ratio": mine / other if comparison.larger_is_better else other / mine,
        "limit_name": comparison.limit_name,
        "limit": limit(comparison, ours),
        "goal_ratio": comparison.peers[peer],
        "runs": len(ours),
        "spread": {"ours": spread(ours), "peer": spread(theirs)},
    }


def limit(comparison: Comparison, ours: Sequence[Outcome]) -> float | None:
    """What the comparison says, or the median of what ours measured; None where nobody knows."""
    measured = [each.answer["limit"] for each in ours if "limit" in each.answer]
    return statistics.median(measured) if measured else comparison.limit


def spread(outcomes: Sequence[Outcome]) -> float:
    """(largest - smallest) / median of the figures."""
    figures = [each.figure for each in outcomes]
    return (max(figures) - min(figures)) / statistics.median(figures)


def write_outcome(outcome: Outcome, path: Path) -> None:
    """What a side hands to the harness."""
    path.write_text(json.dumps(asdict(outcome)), encoding="utf-8")
