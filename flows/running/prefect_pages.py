"""What the Prefect UI shows of a cycle: a progress artifact for each stage, a table at the end."""

import time
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact

from dashboards.report.cycle_record import CycleRecord

UI_PERIOD_SECONDS = 5.0


class StageProgress:
    """A stage's progress in the Prefect UI: an artifact, and a log line every five seconds at the most."""

    def __init__(self, name: str) -> None:
        made = create_progress_artifact(0.0, key=name.replace("_", "-"), description=f"{name}: starting")
        assert isinstance(made, UUID), "made in a synchronous task"
        self._artifact = made
        self._last_time = time.monotonic()
        self._last = ""

    def tell(self, detail: str, share: float) -> None:
        """Say how far the stage is: `detail` in words, `share` of its whole."""
        if detail and detail != self._last and time.monotonic() - self._last_time > UI_PERIOD_SECONDS:
            self._last_time, self._last = time.monotonic(), detail
            get_run_logger().info("%s", detail)
            update_progress_artifact(self._artifact, min(100.0, 100 * share), description=detail)

    def finish(self) -> None:
        """All of it is done."""
        update_progress_artifact(self._artifact, 100.0)


def summarise(record: CycleRecord) -> None:
    """The cycle stage by stage, as an artifact of its flow run."""
    cells = [
        (each.name, each.status, f"{each.seconds:.1f}", f"{each.planned_seconds or ''}", (each.digest or "")[:12])
        for each in record.stages
    ]
    head = [("stage", "status", "seconds", "planned", "digest"), ("---",) * 5]
    table = "\n".join(f"| {' | '.join(row)} |" for row in [*head, *cells])
    verdict = f"{record.release.decision}: {'; '.join(record.release.reasons)}"
    create_markdown_artifact(
        f"# {record.cycle_id}\n\n{verdict}\n\n{table}\n", key="cycle", description="stage by stage"
    )
