"""Retrain on a schedule: decide whether a cycle is due, and run it."""

import time
from datetime import datetime
from typing import Annotated, Any

from prefect import flow, get_run_logger
from pydantic import Field

from dashboards.report.cycle_record import REPORTS, CycleRecord
from flows.cycle import Hours, Profile, cycle

SECONDS_PER_DAY = 86400


def age_days(now: float) -> float | None:
    """Days since the last cycle that ended without an error; None when there was none."""
    records = [CycleRecord.model_validate_json(path.read_bytes()) for path in REPORTS.glob("cycles/*.json")]
    ended = [datetime.fromisoformat(each.finished_at).timestamp() for each in records if each.error is None]
    return (now - max(ended)) / SECONDS_PER_DAY if ended else None


@flow(name="retrain", flow_run_name="retrain", persist_result=False)
def retrain(
    profile: Profile | None = None,
    hours: Hours | None = None,
    max_age_days: Annotated[float, Field(ge=0, description="a younger model is left as it is")] = 1.0,
) -> dict[str, Any]:
    """Run a cycle if the last one is older than `max_age_days`.

    Args:
        profile: parameter set for the cycle; params.yaml as it is when empty
        hours: deadline of that cycle, hours from its start
        max_age_days: a younger model is left as it is
    """
    age = age_days(time.time())
    if age is not None and age < max_age_days:
        reason = f"the last cycle ended {age:.2f} days ago, younger than {max_age_days}"
        get_run_logger().info("no cycle: %s", reason)
        return {"ran": False, "reason": reason}
    get_run_logger().info("a cycle is due: %s", "none has ended yet" if age is None else f"{age:.2f} days old")
    return {"ran": True, "cycle": cycle(profile=profile, hours=hours)}
