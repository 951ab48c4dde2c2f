"""A cycle's progress and figures for Prometheus: `python -m dashboards.metrics`, one endpoint on loopback.

Reads   the events that feed MLflow (<state>/events/<cycle>/<stage>.jsonl), at each scrape what is new in them
Serves  overnight_<stage>_<metric> for every figure that a stage reports (overnight_pretrain_tokens_per_second, _loss),
        overnight_stage_* and overnight_cycle_* for how far the stages and the cycle are
Covers: the cycle that wrote last, running or not, also one that another process started.
Not covered: labels for steps or workers, earlier cycles (MLflow has them), what the gateway answers (it has its own
/metrics).
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry, make_asgi_app
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from components.core.config import Settings, read_settings
from components.core.events import OUTSIDE_A_CYCLE, read_events
from components.machine.guard import Guard

_NO_NAME = re.compile(r"[^a-zA-Z0-9_]")
STAGE_GAUGES = {
    "running": "1 while the stage runs",
    "progress_ratio": "how far the stage is, as it last said",
    "seconds": "since the start of its process, until its end",
    "planned_seconds": "by the plan, before corrections",
    "given_seconds": "what the stage was given when it started",
}
CYCLE_GAUGES = {
    "running": "1 until the cycle has ended",
    "started_timestamp_seconds": "when the command was given",
    "deadline_timestamp_seconds": "when the cycle has to be done",
    "left_seconds": "until the deadline, negative after it; of an ended cycle, when it ended",
    "work_ratio": "goodput: share of the time so far in which stages did their task",
}


class _Stage:
    """What the events of one stage say so far."""

    def __init__(self) -> None:
        self.offset = 0
        self.metrics: dict[str, float] = {}
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.work_seconds = 0.0
        self.began_at: float | None = None
        self.deadline_seconds: float | None = None
        self.progress: float | None = None

    def read(self, path: Path) -> None:
        """Take what was appended since the last call."""
        events, self.offset = read_events(path, self.offset)
        for each in events:
            self._take(each)

    def _take(self, event: dict[str, Any]) -> None:
        kind = event["kind"]
        if kind == "metric":
            self.metrics[event["name"]] = event["value"]
        elif kind == "progress":
            self.progress = event["done"] / event["total"] if event["total"] else None
        elif kind == "started":
            self.started_at, self.ended_at, self.progress = event["time"], None, None
            self.began_at = event.get("began_at", event["time"])
            self.deadline_seconds = event.get("deadline_seconds")
        elif kind in ("finished", "failed"):
            self.ended_at = event["time"]
            self.work_seconds = event.get("seconds", 0.0)

    def seconds(self, now: float) -> float | None:
        """Since its start, to its end; None before."""
        return None if self.started_at is None else (self.ended_at or now) - self.started_at


class EventsCollector(Collector):
    """Gauges of the cycle that wrote last; each scrape reads what is new. Prometheus scrapes one at a time."""

    def __init__(self, settings: Settings) -> None:
        self._root = settings.state / "events"
        self._cycle: str | None = None
        self._stages: dict[str, _Stage] = {}

    def describe(self) -> list[Any]:
        """Nothing in advance: names follow the events."""
        return []

    def collect(self) -> Iterator[Any]:
        """All gauges as they stand now."""
        self._read()
        if self._cycle is None:
            return
        now = time.time()
        yield InfoMetricFamily("overnight_cycle", "the cycle that the gauges are of", {"cycle": self._cycle})
        whole = self._stages.get("cycle", _Stage())
        for name, value in self._cycle_values(whole, now).items():
            yield GaugeMetricFamily(f"overnight_cycle_{name}", CYCLE_GAUGES[name], value)
        stages = {name: each for name, each in self._stages.items() if name != "cycle"}
        for name, text in STAGE_GAUGES.items():
            family = GaugeMetricFamily(f"overnight_stage_{name}", text, labels=["stage"])
            for stage, each in stages.items():
                if (reading := self._stage_value(name, stage, each, whole, now)) is not None:
                    family.add_metric([stage], reading)
            yield family
        for stage, each in stages.items():
            for name, value in each.metrics.items():
                yield GaugeMetricFamily(
                    _NO_NAME.sub("_", f"overnight_{stage}_{name}"), f"last {name} of {stage}", value
                )

    def _read(self) -> None:
        folders = [path for path in self._root.glob("*") if path.is_dir() and any(path.glob("*.jsonl"))]
        last = max(folders, key=lambda path: max(each.stat().st_mtime for each in path.glob("*.jsonl")), default=None)
        if last is None:
            return
        if last.name != self._cycle:
            self._cycle, self._stages = last.name, {}
        for path in sorted(last.glob("*.jsonl")):
            self._stages.setdefault(path.stem, _Stage()).read(path)

    def _cycle_values(self, whole: _Stage, now: float) -> dict[str, float]:
        began = whole.began_at
        if self._cycle == OUTSIDE_A_CYCLE or began is None:
            return {}
        until = whole.ended_at or now
        work = sum(each.work_seconds for name, each in self._stages.items() if name != "cycle")
        values = {
            "running": float(whole.ended_at is None),
            "started_timestamp_seconds": began,
            "work_ratio": work / max(1e-9, until - began),
        }
        if whole.deadline_seconds is not None:
            ends = began + whole.deadline_seconds
            values |= {"deadline_timestamp_seconds": ends, "left_seconds": ends - until}
        return values

    @staticmethod
    def _stage_value(name: str, stage: str, each: _Stage, whole: _Stage, now: float) -> float | None:
        if name == "running":
            # A stage that was killed says nothing more; the cycle does.
            return float(each.started_at is not None and each.ended_at is None and whole.ended_at is None)
        if name == "progress_ratio":
            return each.progress
        if name == "seconds":
            return each.seconds(whole.ended_at or now)
        return whole.metrics.get(f"{name}/{stage}")


def application(settings: Settings) -> Guard:
    """The endpoint. Without a key, since it changes nothing; not for pages of other origins, which would read it."""
    registry = CollectorRegistry()
    registry.register(EventsCollector(settings))
    return Guard(make_asgi_app(registry), settings.host, settings.metrics_port)


def main() -> None:
    """Serve until the process is ended."""
    settings = read_settings()
    uvicorn.run(application(settings), host=settings.host, port=settings.metrics_port, log_level="error")


if __name__ == "__main__":
    main()
