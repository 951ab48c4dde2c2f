"""Decide whether a model may take a champion's place. Pure: numbers in, a decision with its reasons out.

Absolute: every model that is promoted must reach it. Paired: against the champion on the same items, measured now, by
the criteria of components/evaluation/comparison/compare.py: better in a primary metric, no worse in every guard. Of
candidates no better than the champion, at most 1 - confidence are ever promoted, however often each is judged, and of
equal ones no more are refused for a guard.
"""

from collections.abc import Mapping

import numpy as np
from pydantic import BaseModel, ConfigDict

from components.evaluation.comparison.compare import Check, Outcome, combine, judge
from components.evaluation.comparison.pairs import Paired
from components.release.config import ReleaseConfig

BITS_PER_BYTE = "bits_per_byte"
XZ_BITS_PER_BYTE = "xz_bits_per_byte"
PARSE_SHARE = "parse_share"


class GateDecision(BaseModel):
    """What the gate decided, with one plain sentence per check."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    outcome: Outcome
    reasons: tuple[str, ...]


def decide(
    config: ReleaseConfig, *, figures: Mapping[str, float], differences: Mapping[str, Paired] | None, look: int = 1
) -> GateDecision:
    """The decision on a candidate, judged against this champion for the `look`-th time.

    `figures` holds the candidate's bits_per_byte, xz_bits_per_byte and parse_share. `differences` holds the metrics of
    the criteria, suite/metric, of the same items on both models; None when there is no champion.
    """
    checks = absolute(config, figures)
    if differences is None:
        checks.append(("promote", "no champion to compare with: this is the first model"))
    elif all(outcome == "promote" for outcome, _ in checks):
        checks += judge(config.criteria, differences, look)
    verdict = combine(checks)
    return GateDecision(outcome=verdict.outcome, reasons=verdict.reasons)


def absolute(config: ReleaseConfig, figures: Mapping[str, float]) -> list[Check]:
    """What every model must reach, one outcome and reason per check."""
    missing = [
        name
        for name in (BITS_PER_BYTE, XZ_BITS_PER_BYTE, PARSE_SHARE)
        if not np.isfinite(figures.get(name, np.nan)) or (name == XZ_BITS_PER_BYTE and figures[name] <= 0)
    ]
    if missing:
        return [("not_enough_evidence", f"the evaluation has no usable figure for {', '.join(missing)}")]
    ratio = figures[BITS_PER_BYTE] / figures[XZ_BITS_PER_BYTE]
    share = figures[PARSE_SHARE]
    return [
        _threshold(
            ratio <= config.max_bits_per_byte_of_xz,
            f"bits per byte are {figures[BITS_PER_BYTE]:.3f}, {ratio:.3f} of the {figures[XZ_BITS_PER_BYTE]:.3f} of xz",
            f"at most {config.max_bits_per_byte_of_xz:.3f}",
        ),
        _threshold(
            share >= config.min_parse_share,
            f"{share:.1%} of completions parse",
            f"at least {config.min_parse_share:.1%}",
        ),
    ]


def _threshold(reached: bool, figure: str, needed: str) -> Check:
    return ("promote" if reached else "refuse"), f"{figure}; {'the limit is' if reached else 'needed'} {needed}"
