"""What a stage's contract found, as a table in the Prefect UI."""

import json
from collections.abc import Mapping
from typing import Any

from prefect.artifacts import create_table_artifact

from components.core.config import Settings
from components.core.graph.stages import Stage
from components.data.contracts.contract import REPORT


def tell_prefect(stage: Stage, settings: Settings, *, failed_since: float | None = None) -> None:
    """Make a table of the rules that a stage's output was held to; nothing for a stage without a contract.

    A stage that failed left no output, but its Data Docs have the same report; an older one than `failed_since`,
    seconds since the epoch, is about something else.
    """
    path = stage.output / REPORT
    if failed_since is not None:
        path = settings.state / "docs" / stage.name / REPORT
    if not path.is_file() or (failed_since is not None and path.stat().st_mtime < failed_since):
        return
    report = json.loads(path.read_bytes())
    create_table_artifact(
        table=rows(report),
        key=f"contract-{stage.name.replace('_', '-')}",
        description=f"suite {report['suite']}, {report['rows']} rows",
    )


def rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A contract's report as a table, the rules that failed first."""
    table = [
        {
            "verdict": "passes" if each["success"] else "fails",
            "rule": each["rule"],
            "wanted": each["notes"],
            "judged": each.get("element_count", report["rows"]),
            "failing": each.get("unexpected_count", ""),
            "found": each.get("observed_value", ""),
        }
        for each in report["expectations"]
    ]
    return sorted(table, key=lambda each: each["verdict"])
