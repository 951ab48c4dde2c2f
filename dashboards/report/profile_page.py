"""reports/profile.html: what the corpus is made of, before and after cleaning. One file, no network, no script.

Reads   profile.json of check_clean (components.data.contracts.profile)
Covers: sizes and shares as histograms, languages, licences, sources, what left and why, near duplicates, redactions,
the largest documents. Paths and details are strangers' words: all of them are escaped.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core.artifact import write_file
from components.data.contracts.profile import PROFILE, SHARE, edges
from dashboards.report.chart import Tick, duration, log_ticks, quantity, size, ticks
from dashboards.report.rendering import TEMPLATES, environment

TITLES = {
    "text_bytes": "Document size, bytes",
    "lines": "Lines of a document",
    "mean_line_characters": "Mean line, characters",
    "max_line_characters": "Longest line, characters",
    "alphanumeric_share": "Share of letters and digits",
    "redactions": "Redactions in a document",
}
# In columns of documents these are counted by, with the values that are shown before the rest is only counted.
VALUES = {
    "language": ("Languages", 12),
    "licence": ("Licences", 12),
    "source": ("Sources", 12),
    "package": ("Packages", 15),
}
SIDES = ("before", "after")
# What became of documents that did not stay, in the order of the stages; those left out never came in.
OUTCOMES = ("left", "quarantined", "dropped")
SHOWN = 8
_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")  # the id of a document, whose first figures tell it apart
GAP = 0.12


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A bar of a histogram in a box of 100 by 100; `label` says its range and count."""

    left: float
    width: float
    height: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Both sides of a column on common axes. `note` are the quantiles of the side that stays."""

    title: str
    note: str
    sides: dict[str, list[Bar]]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A value of a column with its bytes on both sides, as percentages of the largest in its table."""

    name: str
    documents: int
    bytes: int
    before: float
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """The largest values of a column, and how many more there are."""

    title: str
    rows: list[Value]
    more: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Documents that one stage took out for one reason, with examples (path, detail)."""

    outcome: str
    reason: str
    documents: int
    bytes: int | None
    share: float
    examples: list[tuple[str, str]]


def grouped(histogram: Mapping[str, Any]) -> dict[int, int]:
    """Counts of bins made coarse enough to draw, by number: two a doubling, 25 for shares."""
    counts: dict[int, int] = {}
    for place, count in enumerate(histogram["counts"]):
        fine = histogram["first"] + place
        coarse = fine // 2 if histogram["scale"] == SHARE else (fine + 1) // 2
        counts[coarse] = counts.get(coarse, 0) + count
    return counts


def _range(scale: str, coarse: int) -> tuple[float, float]:
    """Lower and upper edge of a drawn bin."""
    fine, count = (2 * coarse, 2) if scale == SHARE else (2 * coarse - 1, 2) if coarse else (0, 1)
    return edges(scale, fine, count)[0], edges(scale, fine, count)[-1]


def histogram(column: str, sides: Mapping[str, Mapping[str, Any]]) -> Histogram | None:
    """A column of both summaries as a chart; None when there is nothing to draw."""
    summaries = {side: each for side, each in sides.items() if each["counts"]}
    if not summaries:
        return None
    counts = {side: grouped(each) for side, each in summaries.items()}
    scale = next(iter(summaries.values()))["scale"]
    first = min(min(each) for each in counts.values())
    num_bins = max(max(each) for each in counts.values()) - first + 1
    highest = max(max(each.values()) for each in counts.values())
    top = 1.05 * highest

    def bar(coarse: int, count: int) -> Bar:
        low, high = _range(scale, coarse)
        return Bar(
            left=100 * (coarse - first + GAP / 2) / num_bins,
            width=100 * (1 - GAP) / num_bins,
            height=100 * count / top,
            label=f"{_number(low)} to {_number(high)}: {count:,} documents",
        )

    return Histogram(
        title=TITLES[column],
        note=_quantiles(summaries["after"]) if "after" in summaries else "",
        sides={side: [bar(coarse, count) for coarse, count in each.items() if count] for side, each in counts.items()},
        x_ticks=_x_ticks(scale, first, num_bins),
        y_ticks=[
            Tick(at=100 * value / top, label=quantity(value)) for value in ticks(0, top, 3) if value == int(value)
        ],
    )


def _x_ticks(scale: str, first: int, num_bins: int) -> list[Tick]:
    """Round values at their places between bins; on a logarithmic axis powers of ten, or less where it is short."""
    low, high = _range(scale, first)[0], _range(scale, first + num_bins - 1)[1]
    if scale == SHARE:
        return [Tick(at=100 * (25 * value - first) / num_bins, label=f"{value:g}") for value in ticks(low, high, 4)]
    values = log_ticks(max(low, 1.0), high)
    tick_marks = [
        Tick(at=100 * (1 + 2 * math.log2(value) - first) / num_bins, label=_number(value)) for value in values
    ]
    return [Tick(at=50 / num_bins, label="0"), *tick_marks] if first == 0 else tick_marks


def _number(value: float) -> str:
    return quantity(value) if value < 1000 or value != round(value, -2) else _short(value)


def _short(value: float) -> str:
    """Round thousands in few characters: 1 k, 20 k, 3 M."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:g} {prefix}"
    return f"{value:g}"


def _quantiles(histogram: Mapping[str, Any]) -> str:
    """Median and the long tail, of the side that stays."""
    shown = {"50": "median", "95": "95%", "99": "99%", "100": "largest"}
    return ", ".join(f"{name} {quantity(histogram['quantiles'][percent])}" for percent, name in shown.items())


def values(column: str, profile: Mapping[str, Any]) -> Values | None:
    """The largest values of a column by bytes before cleaning, or None when the column is not there."""
    before, after = (profile[side]["values"].get(column) for side in SIDES)
    if not before and not after:
        return None
    title, limit = VALUES[column]
    before, after = before or {}, after or {}
    nothing = {"documents": 0, "bytes": 0}
    names = sorted({**before, **after}, key=lambda name: (-before.get(name, nothing)["bytes"], name))
    largest = max([each["bytes"] for side in (before, after) for each in side.values()] or [1]) or 1
    rows = [
        Value(
            name=name,
            documents=after.get(name, nothing)["documents"],
            bytes=after.get(name, nothing)["bytes"],
            before=100 * before.get(name, nothing)["bytes"] / largest,
            after=100 * after.get(name, nothing)["bytes"] / largest,
        )
        for name in names[:limit]
    ]
    return Values(title=title, rows=rows, more=len(names) - len(rows))


def reasons(profile: Mapping[str, Any]) -> list[Reason]:
    """What left, in the order of the stages; shares are percentages of the documents that came in."""
    total = profile["before"]["documents"] or 1
    return [
        Reason(
            outcome=outcome,
            reason=reason.replace("_", " "),
            documents=each["documents"],
            bytes=each["bytes"],
            share=0.0 if outcome == OUTCOMES[0] else min(100.0, 100 * each["documents"] / total),
            examples=[
                (example["path"] or "", _DIGEST.sub(r"\1", example["detail"] or "")) for example in each["examples"]
            ],
        )
        for outcome in OUTCOMES
        for reason, each in profile[outcome].items()
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How many near-duplicate clusters have so many documents, in ranges that double."""

    label: str
    clusters: int
    width: float


def cluster_sizes(sizes: Sequence[Sequence[int]]) -> list[Sizes]:
    """Clusters by size in the ranges 2, 3 to 4, 5 to 8, and so on; `sizes` are (size, clusters)."""
    ranges: dict[int, int] = {}
    for each, clusters in sizes:
        power = math.ceil(math.log2(each))
        ranges[power] = ranges.get(power, 0) + clusters
    largest = max(ranges.values(), default=1)
    return [
        Sizes(
            label=f"{2 ** (power - 1) + 1:,} to {2**power:,}" if power > 1 else "2",
            clusters=count,
            width=100 * count / largest,
        )
        for power, count in sorted(ranges.items())
    ]


def render(report: Path, out: Path, cycle_id: str) -> Path:
    """Write the page of the profile in check_clean's artifact, and return its path."""
    profile = json.loads((report / PROFILE).read_bytes())
    templates = environment({"quantity": quantity, "size": size, "duration": duration})
    histograms = [
        histogram(
            column,
            {side: each for side in SIDES if (each := profile[side]["histograms"].get(column)) is not None},
        )
        for column in TITLES
    ]
    text = templates.get_template("profile.html.j2").render(
        cycle_id=cycle_id,
        profile=profile,
        histograms=[each for each in histograms if each is not None],
        values=[each for column in VALUES if (each := values(column, profile)) is not None],
        reasons=reasons(profile),
        cluster_sizes=cluster_sizes(profile["clusters"]["sizes"]),
        shown=SHOWN,
        css=(TEMPLATES / "cycle.css").read_text(encoding="utf-8") + (TEMPLATES / "profile.css").read_text("utf-8"),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_file(out, text.encode())
    return out
