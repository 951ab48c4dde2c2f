"""What a person sees while a cycle runs: a live table in a terminal, plain lines elsewhere, the same facts in both."""

import sys
import time
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from components.core.config import Settings
from components.core.events import Events, read_events
from dashboards.report.cycle_record import StageResult

LINE_PERIOD_SECONDS = 20.0
# Figures that a stage is followed by; one that tells none of them shows what it told last.
TELLING = ("loss", "heldout_loss", "validation_bits_per_byte", "tokens_per_second")


class Progress(Protocol):
    """Told of each stage's start, events and end, and of notes of the cycle itself."""

    def started(self, stage: str, planned_seconds: float | None) -> None: ...

    def update(self, stage: str, events: list[dict[str, Any]]) -> None: ...

    def finished(self, stage: str, result: StageResult) -> None: ...

    def failed(self, stage: str, error: str) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


class StageWatch:
    """Reads the new events of one running stage at each call and hands them on."""

    def __init__(self, stage: str, settings: Settings, progress: Progress) -> None:
        self._stage = stage
        self._progress = progress
        self._path = Events.path_of(stage, settings)
        _, self._offset = read_events(self._path)
        self._row = _Row(None)

    def __call__(self) -> None:
        events, self._offset = read_events(self._path, self._offset)
        for event in events:
            self._row.take(event)
        self._progress.update(self._stage, events)

    @property
    def detail(self) -> str:
        """How far the stage is and its last figures, in one line."""
        return self._row.detail

    @property
    def share(self) -> float:
        """How far the stage is, from 0 to 1, as it last said."""
        return self._row.share


class _Row:
    """What is known of one stage right now."""

    def __init__(self, planned_seconds: float | None) -> None:
        self.planned_seconds = planned_seconds
        self.begun = time.monotonic()
        self.state = "running"
        self.seconds: float | None = None
        self.done = ""
        self.share = 0.0
        self.metrics: dict[str, float] = {}
        self.said = time.monotonic()

    def take(self, event: dict[str, Any]) -> None:
        if event["kind"] == "progress":
            self.share = event["done"] / event["total"] if event["total"] else 0.0
            self.done = f"{self.share:4.0%} of {_quantity(event['total'], event['unit'])}"
        elif event["kind"] == "metric" and not event["name"].startswith("system/"):
            self.metrics[event["name"]] = event["value"]

    @property
    def detail(self) -> str:
        names = [name for name in TELLING if name in self.metrics] or list(self.metrics)[-3:]
        shown = [f"{name} {_figure(self.metrics[name])}" for name in names]
        return "  ".join([*([self.done] if self.done else []), *shown])


def _figure(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _quantity(value: float, unit: str) -> str:
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{'B' if unit == 'bytes' else ' ' + unit}"
    return f"{value:.3g} {unit}"


class Lines:
    """For logs: one line at a stage's start and end, its notes, and every 20 s how far it is."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: dict[str, _Row] = {}

    def started(self, stage: str, planned_seconds: float | None) -> None:
        self._rows[stage] = _Row(planned_seconds)

    def update(self, stage: str, events: list[dict[str, Any]]) -> None:
        row = self._rows[stage]
        for event in events:
            row.take(event)
            if event["kind"] == "note":
                self._say(f"{stage:<12} {event['text']}")
        if time.monotonic() - row.said > LINE_PERIOD_SECONDS and row.detail:
            row.said = time.monotonic()
            self._say(f"{stage:<12} {time.monotonic() - row.begun:6.0f} s  {row.detail}")

    def finished(self, stage: str, result: StageResult) -> None:
        planned = self._rows[stage].planned_seconds
        plan = f" of {planned:.0f} planned" if planned and result.status == "ran" else ""
        self._say(f"{stage:<12} {result.status:<6} {result.seconds:6.1f} s{plan}  {result.digest[:12]}")

    def failed(self, stage: str, error: str) -> None:
        self._say(f"{stage:<12} failed  {error}")

    def note(self, text: str) -> None:
        self._say(text)

    def close(self) -> None:
        return

    def _say(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)


class Screen:
    """For terminals: one row a stage, renewed in place; notes scroll by above."""

    def __init__(self, console: Console) -> None:
        self._rows: dict[str, _Row] = {}
        self._live = Live(self._table(), console=console, refresh_per_second=2, get_renderable=self._table)
        self._live.start()

    def started(self, stage: str, planned_seconds: float | None) -> None:
        self._rows[stage] = _Row(planned_seconds)

    def update(self, stage: str, events: list[dict[str, Any]]) -> None:
        for event in events:
            self._rows[stage].take(event)
            if event["kind"] == "note":
                self.note(f"{stage}: {event['text']}")

    def finished(self, stage: str, result: StageResult) -> None:
        self._rows[stage].state, self._rows[stage].seconds = result.status, result.seconds

    def failed(self, stage: str, error: str) -> None:
        row = self._rows[stage]
        row.state, row.seconds = "failed", time.monotonic() - row.begun

    def note(self, text: str) -> None:
        self._live.console.print(Text(text))

    def close(self) -> None:
        self._live.stop()

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 1))
        for name, justify in (
            ("stage", "left"),
            ("", "left"),
            ("seconds", "right"),
            ("planned", "right"),
            ("", "left"),
        ):
            table.add_column(name, justify=justify, no_wrap=name != "")  # type: ignore[arg-type]
        colours = {"running": "yellow", "ran": "green", "cached": "cyan", "failed": "red"}
        for stage, row in self._rows.items():
            seconds = row.seconds if row.seconds is not None else time.monotonic() - row.begun
            planned = f"{row.planned_seconds:.0f}" if row.planned_seconds else ""
            table.add_row(stage, Text(row.state, colours[row.state]), f"{seconds:.1f}", planned, row.detail)
        return table


def open_progress(settings: Settings) -> Progress:
    """The display that fits standard output. `settings` must name the cycle whose events are shown."""
    assert settings.cycle, "progress belongs to a cycle"
    console = Console(file=sys.stdout, highlight=False)
    return Screen(console) if console.is_terminal else Lines(console)
