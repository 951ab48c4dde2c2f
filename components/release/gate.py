"""Decide whether a model may take a champion's place. Pure: numbers in, a decision with its reasons out.

Absolute: every model that is promoted must reach it. Paired: against the champion on the same items, measured now.
A paired check asks for non-inferiority: with one-sided confidence c the mean difference is
    better than -margin        no worse, the check passes
    worse than -margin         worse, the check refuses
    neither                    not enough evidence, which promotes nobody
So two models of equal quality are refused with probability at most 1 - c per metric, whatever the margin, and one that
is worse by the margin or more passes with probability at most 1 - c.

Not covered: repeated tries. Each try of the same architecture is a fresh draw, and one in 1 / (1 - c) may slip through.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from components.release.config import ReleaseConfig

BITS_PER_BYTE = "bits_per_byte"
XZ_BITS_PER_BYTE = "xz_bits_per_byte"
PARSE_SHARE = "parse_share"

Outcome = Literal["promote", "refuse", "not_enough_evidence"]
Values = NDArray[np.float64]


class GateDecision(BaseModel):
    """What the gate decided, with one plain sentence per check."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    outcome: Outcome
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """Candidate minus champion per item, and the items' weights (bytes, for bits per byte), both of shape (items,)."""

    differences: Values
    weights: Values


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A weighted mean difference with its two one-sided confidence bounds, over n items."""

    mean: float
    low: float
    high: float
    n: int


def decide(
    config: ReleaseConfig, *, figures: Mapping[str, float], differences: Mapping[str, Paired] | None
) -> GateDecision:
    """The decision on a candidate.

    `figures` holds the candidate's bits_per_byte, xz_bits_per_byte and parse_share. `differences` holds bits_per_byte
    and parse_share of the same items on both models; None when there is no champion.
    """
    checks = absolute(config, figures)
    if differences is None:
        checks.append(("promote", "no champion to compare with: this is the first model"))
    else:
        checks.extend(paired(config, differences))
    return combine(checks)


def absolute(config: ReleaseConfig, figures: Mapping[str, float]) -> list[tuple[Outcome, str]]:
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


def paired(config: ReleaseConfig, differences: Mapping[str, Paired]) -> list[tuple[Outcome, str]]:
    """Non-inferiority to the champion, one outcome and reason per metric."""
    return [
        _non_inferior(config, "bits per byte", differences.get(BITS_PER_BYTE), config.margin_bits_per_byte, -1),
        _non_inferior(
            config, "share of completions that parse", differences.get(PARSE_SHARE), config.margin_parse_share, 1
        ),
    ]


def interval(paired: Paired, confidence: float, *, share: bool) -> Interval:
    """The weighted mean of independent differences with one-sided normal bounds (linearised ratio of sums).

    Differences of shares lie in [-1, 1] and are mostly zero, where the sample variance misleads: half an item of the
    mean weight is added to each cell of the paired table (Agresti and Min 2005, Statistics in Medicine 24:729).
    """
    differences, weights, n = paired.differences, paired.weights, len(paired.differences)
    if share:
        differences = np.append(differences, [0.5**0.5, -(0.5**0.5)])
        weights = np.append(weights, [weights.mean()] * 2)
    mean = float((weights * differences).sum() / weights.sum())
    correction = 1.0 if share else n / (n - 1)
    variance = correction * float(np.square(weights * (differences - mean)).sum()) / float(weights.sum()) ** 2
    reach = NormalDist().inv_cdf(confidence) * variance**0.5
    return Interval(mean=mean, low=mean - reach, high=mean + reach, n=n)


def _non_inferior(
    config: ReleaseConfig, name: str, paired: Paired | None, margin: float, better: Literal[-1, 1]
) -> tuple[Outcome, str]:
    """Compare one metric; `better` is the sign of an improvement, 1 for shares."""
    n = 0 if paired is None else len(paired.differences)
    if paired is None or n < config.min_items:
        return "not_enough_evidence", f"{name}: {n} items on both models, needed {config.min_items}"
    if not (np.isfinite(paired.differences).all() and np.isfinite(paired.weights).all()):
        return "not_enough_evidence", f"{name}: some items have no finite figure"
    found = interval(paired, config.confidence, share=better == 1)
    text = (
        f"{name}: {found.mean:+.4f} against the champion on {n} items, "
        f"between {found.low:+.4f} and {found.high:+.4f} (each bound with {config.confidence:.0%} confidence)"
    )
    worst, best = sorted((better * found.low, better * found.high))
    if worst > -margin:
        return "promote", f"{text}: not worse by more than {margin}"
    if best < -margin:
        return "refuse", f"{text}: worse by more than {margin}"
    return "not_enough_evidence", f"{text}: it may be worse by more than {margin}; evaluate on more items"


def _threshold(reached: bool, found: str, needed: str) -> tuple[Outcome, str]:
    return ("promote" if reached else "refuse"), f"{found}; {'the limit is' if reached else 'needed'} {needed}"


def combine(checks: Sequence[tuple[Outcome, str]]) -> GateDecision:
    """One refusal refuses; else one doubt withholds; else promote. The reasons that decided come first."""
    order: dict[Outcome, int] = {"refuse": 0, "not_enough_evidence": 1, "promote": 2}
    ranked = sorted(checks, key=lambda check: order[check[0]])
    return GateDecision(outcome=ranked[0][0], reasons=tuple(reason for _, reason in ranked))
