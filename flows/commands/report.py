"""Render the page of the last cycle again, e.g. after its template changed."""

from pathlib import Path

from components.core.config import read_settings
from components.core.errors import DataError
from components.core.graph.stages import read_stages
from dashboards.report.cycle_record import REPORTS, CycleRecord
from dashboards.report.page import render


def render_last() -> Path:
    """reports/cycle.html from reports/cycle.json. Raises DataError when no cycle has ended here."""
    source = REPORTS / "cycle.json"
    if not source.exists():
        raise DataError(f"{source}: no cycle has ended in this workspace; `overnight cycle` runs one")
    record = CycleRecord.model_validate_json(source.read_bytes())
    return render(record, REPORTS / "cycle.html", stages=read_stages(), state=read_settings().state)
