"""What a stage reports while it runs: one JSON line per event, appended to .overnight/events/<cycle>/<stage>.jsonl.

Never inside an artifact, whose digest knows no times. One forwarder sends them to MLflow; the terminal, the Prefect
artifacts and the report read the same lines. Appending is one write of one line, so several processes may report.
"""

import errno
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from components.core.config import Settings, read_settings
from components.core.private import folder

Kind = Literal["started", "progress", "metric", "parameter", "tag", "note", "artifact", "finished", "failed"]
OUTSIDE_A_CYCLE = "manual"


class Events:
    """The events of one stage of one cycle. Values are JSON; metrics are finite numbers with a step."""

    def __init__(self, stage: str, settings: Settings | None = None) -> None:
        self.stage = stage
        settings = settings or read_settings()
        self.path = self.path_of(stage, settings)
        folder(settings.state)
        self.path.parent.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def path_of(stage: str, settings: Settings) -> Path:
        """Where a stage's events are."""
        return settings.state / "events" / (settings.cycle or OUTSIDE_A_CYCLE) / f"{stage}.jsonl"

    def write(self, kind: Kind, **values: Any) -> None:
        """Append one event with its time in seconds since the epoch."""
        line = json.dumps({"time": time.time(), "kind": kind, **values}) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):  # whoever needs the room says so; watching ends nothing
                raise
        finally:
            os.close(descriptor)

    def metric(self, name: str, value: float, step: int = 0) -> None:
        """A number at a step, as MLflow understands it."""
        self.write("metric", name=name, value=float(value), step=step)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Several numbers at one step."""
        for name, value in values.items():
            self.metric(name, value, step)

    def parameter(self, name: str, value: Any) -> None:
        """A parameter of the run, once."""
        self.write("parameter", name=name, value=value)

    def tag(self, name: str, value: str) -> None:
        """A tag of the run."""
        self.write("tag", name=name, value=value)

    def note(self, text: str) -> None:
        """One line for the person who watches: a decision, a fallback, its reason."""
        self.write("note", text=text)

    def progress(self, done: float, total: float, unit: str) -> None:
        """How far the stage has come, e.g. (12.5e6, 40e6, 'bytes')."""
        self.write("progress", done=done, total=total, unit=unit)

    def artifact(self, path: Path) -> None:
        """A file worth keeping beside the run (a plot, a page)."""
        self.write("artifact", path=str(path))


def read_events(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The whole events of a file from a byte offset on, and the offset to go on from. An absent file has none."""
    try:
        with path.open("rb") as source:
            source.seek(offset)
            content = source.read()
    except FileNotFoundError:
        return [], offset
    end = content.rfind(b"\n") + 1
    return list(_parse(content[:end])), offset + end


def _parse(content: bytes) -> Iterator[dict[str, Any]]:
    for line in content.splitlines():
        if line.strip():
            yield json.loads(line)
