"""Line charts and time axes as percentages of their box: the page stretches the lines and keeps the text its size.

Covers: linear and logarithmic scales, round ticks, thinning that keeps every spike.  Not covered: colours and layout,
which are dashboards/report/templates/cycle.css's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dashboards.report.cycle_record import CycleRecord

MAX_POINTS = 600
NO_BREAK = "\N{NO-BREAK SPACE}"
AXIS_LIMIT = 4.0  # a deadline further off than this many times the cycle's length is only told
AROUND_SECONDS = 1.0
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_TIME_STEPS_SECONDS = (
    *(1, 2, 5, 10, 20, 30),
    *(_MINUTE * each for each in (1, 2, 3, 5, 10, 15, 20, 30)),
    *(_HOUR * each for each in (1, 2, 3, 6, 12)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A label at a place on an axis, in percent of its length."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A line in a box of 100 by 100, y upwards in `points` and ticks, downwards in `path` as SVG has it, and in
    `ideal`, the path where it should lie."""

    title: str
    note: str
    path: str
    points: list[tuple[float, float, str]]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    reference: Tick | None
    last: str
    ideal: str | None = None


def quantity(value: float) -> str:
    """A count for people, three digits above 100,000: 12, 4,096, 123 k, 1.31 M, 2.4 G."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= max(0.9995 * factor, 1e5):
            return f"{value / factor:.3g}{NO_BREAK}{prefix}"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"


def size(num_bytes: float) -> str:
    """Bytes for people, in powers of ten."""
    return f"{quantity(num_bytes)}B" if num_bytes >= 1e5 else f"{num_bytes:,.0f}{NO_BREAK}bytes"


def duration(seconds: float) -> str:
    """Seconds for people, two units at the most: 0.4 s, 41 s, 9 min 41 s, 23 h 5 min."""
    if seconds < 9.95:
        return f"{seconds:.1f}{NO_BREAK}s"
    if round(seconds) < 60:
        return f"{round(seconds)}{NO_BREAK}s"
    if round(seconds) < 3600:
        return _two(round(seconds), "min", "s")
    return _two(round(seconds / 60), "h", "min")


def _two(value: int, large: str, small: str) -> str:
    whole, rest = divmod(value, 60)
    return NO_BREAK.join([str(whole), large, *([str(rest), small] if rest else [])])


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values from `low` to `high`, about `count` of them, steps of 1, 2 or 5 times a power of ten."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round values from `low` to `high` that lie about evenly on a logarithmic scale, six at the most."""
    for digits in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 3), (1,)):
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        numbers = [
            digit * 10.0**decade for decade in decades for digit in digits if low <= digit * 10.0**decade <= high
        ]
        if len(numbers) <= 6:
            return numbers
    return numbers[:: math.ceil(len(numbers) / 6)]


def time_ticks(end_seconds: float) -> list[Tick]:
    """Round times from 0 to the end, in percent of it, six at the most."""
    days = math.ceil(end_seconds / _DAY / 5)
    step = next((each for each in _TIME_STEPS_SECONDS if end_seconds / each <= 5), days * _DAY)
    numbers = range(math.floor(end_seconds / step + 1e-9) + 1)
    return [Tick(at=100 * number * step / end_seconds, label=_tick_label(number * step)) for number in numbers]


def _tick_label(seconds: float) -> str:
    return duration(seconds) if seconds >= 60 else f"{seconds:.0f}{NO_BREAK}s"


def thin(points: Sequence[tuple[float, float]], limit: int = MAX_POINTS) -> list[tuple[float, float]]:
    """At most `limit` of the points: the lowest and the highest of each of limit / 2 - 1 runs, and both ends."""
    if len(points) <= limit:
        return list(points)
    runs = limit // 2 - 1
    kept = {0, len(points) - 1}
    for run in range(runs):
        part = range(run * len(points) // runs, (run + 1) * len(points) // runs)
        kept |= {min(part, key=lambda i: points[i][1]), max(part, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(kept)]


def line_chart(
    title: str,
    points: Sequence[tuple[float, float]],
    x_unit: str,
    *,
    reference: tuple[str, float] | None = None,
    logarithmic: bool = False,
) -> Chart | None:
    """The points as a chart, or None when no value is finite; values that are not are counted in the note.

    A logarithmic scale becomes a linear one when there are values that have no logarithm.
    """
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    if not finite:
        return None
    values = [y for _, y in finite] + ([reference[1]] if reference else [])
    low, high = min(values), max(values)
    is_log = logarithmic and low > 0
    scale = math.log if is_log else float
    margin = 0.06 * (scale(high) - scale(low)) or 0.5
    bottom, top = scale(low) - margin, scale(high) + margin
    if low == 0:
        bottom = 0.0
    x_end = max(x for x, _ in finite) or 1.0

    def up(value: float) -> float:
        return round(100 * (scale(value) - bottom) / (top - bottom), 2)

    y_values = log_ticks(math.exp(bottom), math.exp(top)) if is_log else ticks(bottom, top)
    placed = [(round(100 * x / x_end, 2), up(y), x, y) for x, y in thin(finite)]
    drawn = placed if len(placed) > 1 else 2 * placed  # a line from a point to itself is a dot
    notes = ["log scale"] if is_log else []
    if lost := len(points) - len(finite):
        notes.append(f"{lost} values are not finite")
    return Chart(
        title=title,
        note=", ".join(notes),
        path="M" + " ".join(f"{x:g},{100 - y:g}" for x, y, _, _ in drawn),
        points=[(left, height, f"{y:.4g} at {quantity(x)} {x_unit}") for left, height, x, y in placed],
        x_ticks=[Tick(at=100 * x / x_end, label=quantity(x)) for x in ticks(0, x_end, 4)],
        y_ticks=[Tick(at=up(value), label=f"{value:.3g}") for value in y_values if 0 <= up(value) <= 100],
        reference=Tick(at=up(reference[1]), label=reference[0]) if reference else None,
        last=f"{finite[-1][1]:.4g} at {quantity(finite[-1][0])} {x_unit}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A row of the timeline: a bar from `left`, its first `overhead` percent start-up; the plan's starts there too."""

    name: str
    status: str
    left: float
    width: float
    overhead: float
    planned: float | None
    seconds: str
    planned_seconds: str
    work_seconds: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Stages on a common time axis; `deadline` is its place, or None when it lies off the axis or there is none."""

    lanes: list[Lane]
    ticks: list[Tick]
    deadline: Tick | None
    note: str


def timeline(record: CycleRecord) -> Timeline:
    """Stages as they ran, the time around them, and the deadline where it is not so far off that it hides them."""
    begun = datetime.fromisoformat(record.started_at).timestamp()
    spans = [(each, max(0.0, each.started_at - begun)) for each in record.stages]
    stages_end = max((start + each.seconds for each, start in spans), default=0.0)
    plans_end = max((start + (each.planned_seconds or 0) for each, start in spans if each.status == "ran"), default=0.0)
    end = max(record.seconds, stages_end, 1.0)
    deadline = record.deadline_hours * 3600 if record.deadline_hours is not None else None
    axis = max(each for each in (end, deadline or 0.0, plans_end) if each <= AXIS_LIMIT * end)

    def lane(name: str, status: str, start: float, seconds: float, work: float, planned: float | None) -> Lane:
        overhead = 100 * (1 - min(1.0, work / seconds)) if seconds else 0.0
        plan = None if planned is None or status == "cached" else min(100 * planned / axis, 100 - 100 * start / axis)
        return Lane(
            name=name,
            status=status,
            left=100 * start / axis,
            width=100 * seconds / axis,
            overhead=overhead,
            planned=plan,
            seconds=duration(seconds),
            planned_seconds=duration(planned) if plan is not None and planned is not None else "",
            work_seconds=duration(work) if status == "ran" else "",
        )

    lanes = [
        lane(each.name, each.status, start, each.seconds, each.work_seconds, each.planned_seconds)
        for each, start in spans
    ]
    if spans and spans[0][1] >= AROUND_SECONDS:
        lanes.insert(0, lane("before the stages", "around", 0.0, spans[0][1], 0.0, None))
    if spans and record.seconds - stages_end >= AROUND_SECONDS:
        lanes.append(lane("after the stages", "around", stages_end, record.seconds - stages_end, 0.0, None))
    inside = deadline is not None and deadline <= axis
    return Timeline(
        lanes=lanes,
        ticks=time_ticks(axis),
        deadline=Tick(at=100 * deadline / axis, label=f"deadline {duration(deadline)}")
        if deadline and inside
        else None,
        note=" ".join(
            [
                *([f"The deadline, {duration(deadline)}, lies beyond this axis."] if deadline and not inside else []),
                *_corrections(record),
            ]
        ),
    )


def _corrections(record: CycleRecord) -> list[str]:
    """What stages that end by the clock got instead of their plan; nothing where all was as planned."""
    changed = [
        f"{each.name} {duration(each.given_seconds)} instead of {duration(each.planned_seconds)}"
        for each in record.stages
        if each.given_seconds and each.planned_seconds
        if abs(each.given_seconds - each.planned_seconds) >= AROUND_SECONDS
    ]
    return [f"The plan was corrected as stages ended: {', '.join(changed)}."] if changed else []
