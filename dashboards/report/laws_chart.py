"""The plots of reports/laws as SVG: measured runs with the fitted law, and simulated ends against their deadline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log

from components.training.config import Alternative
from components.training.planning.fitted import FittedLaw
from dashboards.report.chart import log_ticks, quantity, ticks
from dashboards.report.svg import dot, line, page, text

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 180, 40, 48
COLOURS = ("#1f6feb", "#2da44e", "#bf8700", "#8250df", "#cf222e", "#57606a")
CURVE_POINTS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axes:
    """Places in the box of a range of x and y, both logarithmic or linear."""

    x: tuple[float, float]
    y: tuple[float, float]
    scale: Callable[[float], float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels from the upper left."""
        across = _share(self.scale(x), self.scale(self.x[0]), self.scale(self.x[1]))
        up = _share(self.scale(y), self.scale(self.y[0]), self.scale(self.y[1]))
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def drawn(self, x_label: str, y_label: str, marks: Callable[[float, float], Sequence[float]]) -> list[str]:
        """Grid, ticks and labels."""
        elements = [text(LEFT, 20, y_label), text(WIDTH - RIGHT, HEIGHT - 8, x_label, "end")]
        for value in marks(*self.x):
            across, _ = self.at(value, self.y[0])
            elements += [
                line(across, TOP, across, HEIGHT - BOTTOM),
                text(across, HEIGHT - BOTTOM + 16, quantity(value), "middle"),
            ]
        for value in marks(*self.y):
            _, up = self.at(self.x[0], value)
            elements += [line(LEFT, up, WIDTH - RIGHT, up), text(LEFT - 6, up + 4, f"{value:.3g}", "end")]
        return elements


def fit_svg(law: FittedLaw, planned: Alternative | None) -> str:
    """Measured runs by size over tokens, the law's curve through each size, and the planned run with its interval."""
    fitted = law.fitted
    tokens = [float(each.tokens) for each in law.points] + ([float(planned.tokens)] if planned else [])
    losses = [each.loss for each in law.points]
    if planned and planned.predicted:
        losses += [planned.predicted.low, planned.predicted.high]
    axes = _Axes(x=(min(tokens) / 1.3, max(tokens) * 1.3), y=(min(losses) / 1.04, max(losses) * 1.04), scale=log)
    body = axes.drawn("training tokens", f"held-out {law.unit}, log scales", log_ticks)
    steps = [axes.x[0] * (axes.x[1] / axes.x[0]) ** (number / CURVE_POINTS) for number in range(CURVE_POINTS + 1)]
    sizes = sorted({each.parameters for each in law.points} | ({planned.parameters} if planned else set()))
    for number, size in enumerate(sizes):
        colour = COLOURS[number % len(COLOURS)]
        curve = [axes.at(each, fitted.law.loss(size, each)) for each in steps]
        inside = [(x, y) for x, y in curve if TOP <= y <= HEIGHT - BOTTOM]
        body.append(f'<path fill="none" stroke="{colour}" d="M{" ".join(f"{x:.1f},{y:.1f}" for x, y in inside)}"/>')
        body += [dot(*axes.at(each.tokens, each.loss), colour) for each in law.points if each.parameters == size]
        body.append(text(WIDTH - RIGHT + 10, TOP + 16 * (number + 1), f"{size / 1e6:.2f}M parameters", fill=colour))
        if planned and planned.predicted and size == planned.parameters:
            x, low = axes.at(planned.tokens, planned.predicted.low)
            _, high = axes.at(planned.tokens, planned.predicted.high)
            body.append(line(x, low, x, high, colour, 3))
            body.append(text(x - 6, high - 6, f"planned: {planned.predicted.value:.3f}", "end", colour))
    return page(body, WIDTH, HEIGHT)


def ends_svg(hours: Sequence[float], deadline_hours: float) -> str:
    """A histogram of the hours at which simulated cycles ended, with the deadline."""
    low, high = min([*hours, deadline_hours]) * 0.998, max([*hours, deadline_hours]) * 1.002
    bins = 40
    counts = [0] * bins
    for each in hours:
        counts[min(bins - 1, int(bins * (each - low) / (high - low)))] += 1
    axes = _Axes(x=(low, high), y=(0.0, float(max(counts)) * 1.05), scale=float)
    body = axes.drawn("hours", "simulated cycles", ticks)
    for number, count in enumerate(counts):
        x, y = axes.at(low + (high - low) * number / bins, count)
        width, height = (WIDTH - LEFT - RIGHT) / bins, HEIGHT - BOTTOM - y
        body.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{COLOURS[0]}"/>')
    x, _ = axes.at(deadline_hours, 0)
    body += [line(x, TOP, x, HEIGHT - BOTTOM, COLOURS[4], 2), text(x + 6, TOP + 12, "deadline", fill=COLOURS[4])]
    return page(body, WIDTH, HEIGHT)


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5
