"""What a stage's contract found, as a table in the Prefect UI."""

import json

from prefect.artifacts import create_table_artifact

from components.data.contract import REPORT
from flows.graph import Stage


def tell_prefect(stage: Stage) -> None:
    """Make a table of the rules that a stage's output was held to; nothing for a stage without a contract."""
    path = stage.output / REPORT
    if not path.is_file():
        return
    report = json.loads(path.read_bytes())
    table = [
        {
            "rule": each["rule"],
            "wanted": each["notes"],
            "judged": each.get("element_count", report["rows"]),
            "failing": each.get("unexpected_count", 0 if each["success"] else 1),
            "found": each.get("observed_value", ""),
            "verdict": "passes" if each["success"] else "fails",
        }
        for each in report["expectations"]
    ]
    create_table_artifact(
        table,
        key=f"contract-{stage.name.replace('_', '-')}",
        description=f"suite {report['suite']}, {report['rows']} rows",
    )
