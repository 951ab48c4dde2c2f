"""`up`, a cycle started as the Prefect UI's form starts it, `down`: real servers on ports of their own."""

import base64
import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from tests import visitors
from tests.test_cycle import processes_of
from tests.workspace import HOST, TINY, Workspace, make

pytestmark = [pytest.mark.slow, pytest.mark.in_order]
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    made = make(tmp_path_factory.mktemp("up") / "checkout")
    done = made.overnight("up")
    assert done.returncode == 0, done.stdout + done.stderr
    yield made
    made.overnight("down")


def api(workspace: Workspace, method: str, path: str, **body: Any) -> Any:
    url = f"{workspace.url('prefect')}/api/{path}"
    answer = httpx.request(method, url, json=body or None, timeout=30, auth=workspace.credentials)
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
    assert "a password, the line in .overnight/keys/services" in again.stdout


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


PAGE = "Origin: http://evil.example"
REBOUND = "Host: evil.example"
TEXT = "Content-Type: text/plain"  # a page may send it anywhere without asking first
DEPLOYMENT = json.dumps({"name": "x", "flow_id": "0" * 32, "job_variables": {"command": "touch /tmp/x"}}).encode()


@pytest.mark.parametrize(
    ("service", "method", "path", "body"),
    [
        ("prefect", "POST", "/api/deployments/", DEPLOYMENT),
        ("prefect", "POST", "/api/flows/", b'{"name": "x"}'),
        ("prefect", "PATCH", "/api/work_pools/overnight", b'{"is_paused": true}'),
        ("prefect", "DELETE", "/api/work_pools/overnight", b""),
        ("prefect", "POST", "/api/admin/database/clear", b'{"confirm": true}'),
        ("prefect", "GET", "/api/admin/settings", b""),
        ("prefect", "POST", "/api/logs/filter", b"{}"),
        ("prefect", "GET", "/openapi.json", b""),
        ("mlflow", "POST", "/api/2.0/mlflow/registered-models/create", b'{"name": "overnight"}'),
        ("mlflow", "POST", "/ajax-api/2.0/mlflow/registered-models/create", b'{"name": "overnight"}'),
        ("mlflow", "POST", "/api/2.0/mlflow/experiments/delete", b'{"experiment_id": "0"}'),
        ("mlflow", "POST", "/graphql", b'{"query": "{__typename}"}'),
        ("mlflow", "GET", "/api/2.0/mlflow/experiments/search?max_results=1", b""),
        ("mlflow", "GET", "/get-artifact?path=x&run_uuid=0", b""),
    ],
)
def test_a_stranger_changes_and_reads_nothing(
    workspace: Workspace, service: str, method: str, path: str, body: bytes
) -> None:
    """As another user: no key, a wrong one. As a page: from its origin, by its name, also with a key that a browser
    keeps and sends along."""
    port = workspace.port(service)
    key = f"Authorization: Basic {base64.b64encode(':'.join(workspace.credentials).encode()).decode()}"
    wrong = f"Authorization: Basic {base64.b64encode(b'overnight:0').decode()}"
    for headers in ([], [TEXT], [wrong]):
        assert visitors.status(port, method, path, headers, body) == 401, headers
    for headers in ([PAGE], [PAGE, TEXT], [PAGE, key], [REBOUND], [REBOUND, key], ["Origin: null", key]):
        assert visitors.status(port, method, path, headers, body) == 403, headers
    preflight = visitors.request(port, "OPTIONS", path, [PAGE, f"Access-Control-Request-Method: {method}"])
    assert int(preflight.split()[1]) in (401, 403) and b"access-control-allow" not in preflight.lower()


@pytest.mark.parametrize(
    "path",
    [
        "events/in",
        "events/out",
        "logs/out",
        "task_runs/subscriptions/scheduled",
        "work_pools/overnight/workers/connect",
    ],
)
def test_sockets_ask_for_the_key_too(workspace: Workspace, path: str) -> None:
    url = f"ws://{HOST}:{workspace.port('prefect')}/api/{path}"
    key = ":".join(workspace.credentials)

    def greeted(token: str | None, **options: Any) -> str:
        with connect(url, subprotocols=[Subprotocol("prefect")], open_timeout=30, **options) as connection:
            connection.send(json.dumps({"type": "auth", "token": token}))
            return str(connection.recv(timeout=30))

    assert json.loads(greeted(key)) == {"type": "auth_success"}
    for token in (None, "", "overnight:0"):
        with pytest.raises(ConnectionClosed):
            greeted(token)
    with pytest.raises(InvalidStatus, match="403"), connect(url, open_timeout=30):
        pass  # without Prefect's protocol there is no place for a key
    for options in ({"origin": Origin("http://evil.example")}, {"additional_headers": {"Origin": "null"}}):
        with pytest.raises(InvalidStatus, match="403"):
            greeted(key, **options)


def test_every_port_of_the_stack_refuses_strangers(workspace: Workspace) -> None:
    """Also of services that this file does not know, and of Ray's many processes."""
    found = visitors.listeners(workspace.root)
    assert len(found) > 8 and {address.removeprefix("::ffff:") for address, _ in found.values()} == {HOST}
    named = {workspace.port(name): name for name in ("prefect", "mlflow", "metrics")}
    guarded = 0
    for port, (_, command) in found.items():
        spoken = visitors.kind(port)
        if spoken == visitors.GRPC:
            assert visitors.ray_answers(port) == {"UNAUTHENTICATED", "UNIMPLEMENTED"}, command
            guarded += 1
        elif spoken == visitors.HTTP and named.get(port) != "metrics":  # which knows no method that changes anything
            for path in ("/", "/api/jobs/", "/api/serve/applications/", "/get_or_create_runtime_env"):
                for method in ("POST", "PUT", "DELETE"):
                    assert visitors.status(port, method, path, [TEXT], b"{}") in (401, 403, 404, 405), (command, path)
    assert guarded > 4
    assert set(named) <= set(found)


def test_keys_and_state_are_private_and_keys_are_told_to_nobody(workspace: Workspace) -> None:
    state = workspace.root / ".overnight"
    secrets = [path.read_text() for path in (state / "keys").iterdir()]
    assert len(secrets) == len(set(secrets)) == 2
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (state / "keys").iterdir()} == {0o600}
    sessions = Path((state / "services" / "ray.directory").read_text())
    assert stat.S_IMODE(sessions.stat().st_mode) == 0o700 and list(sessions.glob("*/session_*"))
    printed = [path for folder in (state / "logs", sessions) for path in folder.rglob("*") if path.is_file()]
    arguments = " ".join(" ".join(each.cmdline()) for each in visitors.processes(workspace.root))
    assert len(printed) > 10
    for secret in secrets:
        assert secret not in arguments
        assert [path for path in printed if secret.encode() in path.read_bytes()] == []


def test_down_leaves_nothing_running(workspace: Workspace) -> None:
    sessions = Path((workspace.root / ".overnight" / "services" / "ray.directory").read_text())
    done = workspace.overnight("down")
    assert done.returncode == 0 and all(name in done.stdout for name in ("prefect", "mlflow", "ray", "worker"))
    deadline = time.monotonic() + 20
    while (left := processes_of(workspace.root)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []
    assert not sessions.exists()
