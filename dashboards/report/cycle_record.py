"""reports/cycle.json: what a cycle did, for scripts. reports/cycle.html (page.py) says the same to people."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from components.core import artifact
from components.core.artifact import write_file
from components.core.errors import ArtifactError
from components.core.graph.stages import Stage, read_stages, released, writer
from components.training.config import Plan, read_plan

REPORTS = Path("reports")
Status = Literal["ran", "cached", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """How one stage of a cycle ended. `work_seconds` is the part in which the stage did its task: without the start
    of its interpreter, imports, DVC's bookkeeping and what the stage itself reports as `startup_seconds`."""

    name: str
    status: Status
    seconds: float
    work_seconds: float
    digest: str
    peak_memory_bytes: int


class Record(BaseModel):
    """A part of the report. Frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StageRecord(Record):
    """One stage: `seconds` as the cycle saw it, `work_seconds` without start-up, `planned_seconds` from the plan,
    `given_seconds` what a stage that ends by the clock got when it started: the plan after its corrections."""

    name: str
    status: Status
    seconds: float
    work_seconds: float
    planned_seconds: float | None
    given_seconds: float | None = None
    digest: str | None
    mlflow_run_id: str | None
    started_at: float
    peak_memory_bytes: int


class ModelRecord(Record):
    """The model that the cycle ends with: parameters counted once, tokens seen in pretraining."""

    digest: str
    parameters: int
    tokens: int


class ReleaseRecord(Record):
    """What the gate said, and the commit that says what serves."""

    decision: Literal["promote", "refuse", "not_enough_evidence", "already_live", "not_asked"]
    reasons: tuple[str, ...]
    version: str | None
    environment_commit: str | None


class ServingRecord(Record):
    """Where the model answers, and how long the first request took."""

    url: str
    first_request_ms: float
    prompt: str
    completion: str


class CycleRecord(Record):
    """reports/cycle.json. Times are ISO 8601 in UTC, durations seconds."""

    cycle_id: str
    profile: str | None
    started_at: str
    finished_at: str
    deadline_hours: float | None
    deadline_left_seconds: float | None = Field(
        default=None, description="negative when it was missed; None when fixed"
    )
    seconds: float
    work_seconds: float
    goodput: float | None = Field(default=None, description="share of the time in which stages did their task")
    peak_memory_bytes: int
    stages: tuple[StageRecord, ...]
    metrics: dict[str, Any]
    model: ModelRecord | None
    release: ReleaseRecord
    serving: ServingRecord | None
    notes: tuple[str, ...]
    error: str | None
    parameters: dict[str, Any] | None = Field(default=None, description="params.yaml as used, for --replay")
    decided: dict[str, dict[str, Any]] = Field(default={}, description="what the clock decided, by stage")
    contents: dict[str, str] = Field(default={}, description="digest of the files of each artifact, by stage")
    machine: dict[str, Any] = Field(default={}, description="as components.training.planning.hardware describes it")
    commit: str = Field(default="", description="of the checkout")


def iso(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def current_plan() -> Plan | None:
    """The plan of the cycle, once it was made. One that older code left is none: the stage that made it runs again."""
    try:
        return read_plan(writer(read_stages(), "training_plan").output)
    except ArtifactError:
        return None


def read_metrics() -> dict[str, Any]:
    """Every figure of the evaluation, once it was made."""
    path = writer(read_stages(), "evaluation").output / "figures.json"
    metrics: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    return metrics


def model_record(stages: Sequence[Stage]) -> ModelRecord | None:
    """The final model as its own manifest and that of its pretraining describe it; None before there is one."""
    try:
        final = artifact.read(released(stages).output, verify=False)
        base = artifact.read(writer(stages, "base_model").output, verify=False)
    except ArtifactError:
        return None
    return ModelRecord(digest=final.digest, parameters=base.statistics["parameters"], tokens=base.statistics["tokens"])


def stage_records(
    results: Sequence[tuple[StageResult, float]],
    plan: Plan | None,
    run_ids: dict[str, str],
    given_seconds: Mapping[str, float],
) -> tuple[StageRecord, ...]:
    """Each stage's result and start time, beside its plan and its MLflow run."""
    return tuple(
        StageRecord(
            name=result.name,
            status=result.status,
            seconds=round(result.seconds, 3),
            work_seconds=round(result.work_seconds, 3),
            planned_seconds=plan.stage_seconds.get(result.name) if plan else None,
            given_seconds=given_seconds.get(result.name),
            digest=result.digest or None,
            mlflow_run_id=run_ids.get(result.name),
            started_at=started_at,
            peak_memory_bytes=result.peak_memory_bytes,
        )
        for result, started_at in results
    )


def write(record: CycleRecord, folder: Path = REPORTS) -> Path:
    """Write cycle.json whole, and a copy under its cycle's id, so that an earlier cycle can be looked up."""
    content = record.model_dump_json(indent=1).encode()
    (folder / "cycles").mkdir(parents=True, exist_ok=True)
    write_file(folder / "cycles" / f"{record.cycle_id}.json", content)
    path = folder / "cycle.json"
    write_file(path, content)
    return path
