"""`up`, a cycle started as the Prefect UI's form starts it, `down`: real servers on ports of their own."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.test_cycle import processes_of
from tests.workspace import TINY, Workspace, make

pytestmark = pytest.mark.slow
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    made = make(tmp_path_factory.mktemp("up") / "checkout")
    done = made.overnight("up")
    assert done.returncode == 0, done.stdout + done.stderr
    yield made
    made.overnight("down")


def api(workspace: Workspace, method: str, path: str, **body: Any) -> Any:
    answer = httpx.request(method, f"{workspace.url('prefect')}/api/{path}", json=body or None, timeout=30)
    answer.raise_for_status()
    return answer.json()


def test_everything_answers(workspace: Workspace) -> None:
    found = json.loads(workspace.overnight("status", "--json").stdout)
    healthy = {each["name"]: each["healthy"] for each in found["services"]}
    assert healthy == {
        **dict.fromkeys(("prefect", "mlflow", "ray", "worker", "reconcile", "metrics"), True),
        "gateway": False,  # nothing was promoted yet
    }
    assert httpx.get(f"{workspace.url('mlflow')}/health", timeout=10).text == "OK"
    again = workspace.overnight("up")
    assert again.returncode == 0, "safe to repeat"


def test_the_form_is_typed_and_the_schedule_is_there(workspace: Workspace) -> None:
    names = {each["name"]: each for each in api(workspace, "POST", "deployments/filter")}
    assert set(names) == {"cycle", "release", "reconcile", "retrain"}
    form = names["cycle"]["parameter_openapi_schema"]["properties"]
    assert form["profile"]["anyOf"][0]["enum"] == ["smoke", "cpu-hour", "h200-day", "h100x8-day"]
    assert form["hours"]["anyOf"][0]["exclusiveMinimum"] == 0 and form["hours"]["anyOf"][0]["maximum"] == 336
    (schedule,) = names["retrain"]["schedules"]
    assert schedule["schedule"]["cron"] == "0 1 * * *" and schedule["active"]


def test_a_cycle_started_from_the_form_is_seen_stage_by_stage(workspace: Workspace) -> None:
    deployment = api(workspace, "GET", "deployments/name/cycle/cycle")["id"]
    parameters = {"overrides": list(TINY), "until": "check_clean", "profile": "smoke", "hours": 0.5}
    run = api(workspace, "POST", f"deployments/{deployment}/create_flow_run", parameters=parameters)["id"]
    deadline = time.monotonic() + 240
    while (state := api(workspace, "GET", f"flow_runs/{run}")["state"])["type"] not in ENDED:
        assert time.monotonic() < deadline, state
        time.sleep(0.5)
    assert state["type"] == "COMPLETED", state
    only = {"flow_runs": {"id": {"any_": [run]}}}
    tasks = api(workspace, "POST", "task_runs/filter", **only)
    assert {each["name"]: each["state"]["type"] for each in tasks} == dict.fromkeys(
        ("ingest", "check_raw", "clean", "check_clean"), "COMPLETED"
    )
    artifacts = {each["key"] for each in api(workspace, "POST", "artifacts/filter", **only)}
    assert {"cycle", "ingest", "check-raw", "clean", "check-clean"} <= artifacts
    assert "hours: 0.5" in (workspace.root / "params.yaml").read_text()


def test_a_form_filled_in_wrongly_is_refused(workspace: Workspace) -> None:
    deployment = api(workspace, "GET", "deployments/name/cycle/cycle")["id"]
    for parameters in ({"profile": "enormous"}, {"hours": -1}):
        with pytest.raises(httpx.HTTPStatusError, match=r"409|422"):
            api(workspace, "POST", f"deployments/{deployment}/create_flow_run", parameters=parameters)


def test_down_leaves_nothing_running(workspace: Workspace) -> None:
    done = workspace.overnight("down")
    assert done.returncode == 0 and all(name in done.stdout for name in ("prefect", "mlflow", "ray", "worker"))
    deadline = time.monotonic() + 20
    while (left := processes_of(workspace.root)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []
