"""Scales, ticks, thinning and numbers for people."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.report.chart import duration, line_chart, quantity, thin, ticks, time_ticks


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.96, "10 s"), (59.6, "1 min"), (581, "9 min 41 s"), (3599.7, "1 h"), (83_100, "23 h 5 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds).replace("\N{NO-BREAK SPACE}", " ") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.25, "0.25"), (4096, "4,096"), (999_600, "1 M"), (123_456, "123 k"), (1_312_512, "1.31 M")],
)
def test_quantities(value: float, text: str) -> None:
    assert quantity(value).replace("\N{NO-BREAK SPACE}", " ") == text


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_few_and_inside(low: float, width: float) -> None:
    high = low + width
    found = ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), width)
    assert len(found) <= 7
    assert all(low - slack <= value <= high + slack for value in found)


@given(st.floats(0.5, 1e7))
def test_time_ticks_are_few_and_inside(end: float) -> None:
    found = time_ticks(end)
    assert 1 <= len(found) <= 6
    assert all(0 <= tick.at <= 100.001 for tick in found)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=3000), st.integers(10, 400))
def test_thinning_keeps_both_ends_and_the_extremes(values: list[float], limit: int) -> None:
    points = [(float(step), value) for step, value in enumerate(values)]
    kept = thin(points, limit)
    assert len(kept) <= max(limit, 2)
    assert kept[0] == points[0] and kept[-1] == points[-1]
    assert min(y for _, y in kept) == min(values) and max(y for _, y in kept) == max(values)


def test_a_chart_counts_what_it_cannot_draw() -> None:
    chart = line_chart("loss", [(1.0, 2.0), (2.0, math.nan), (3.0, 1.0)], "steps", logarithmic=True)
    assert chart is not None and chart.note == "log scale, 1 values are not finite"
    assert line_chart("loss", [(1.0, math.inf)], "steps") is None
