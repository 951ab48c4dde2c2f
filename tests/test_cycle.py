"""The whole path, as a user runs it, one story from its top to its end: `up`, a form of the Prefect UI, one tiny cycle
from raw data to a served answer, what strangers get to see of it, what people do next, `down`.

Real servers on ports of their own, in a checkout of its own, shared by all tests of this file.
"""

import base64
import json
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import psutil
import pytest
from mlflow import MlflowClient
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from components.core import artifact
from components.tokens.shards.order import places_of_step, samples_at
from components.tokens.shards.token_store import TokenStore
from flows.running.tracking import EXPERIMENT
from tests import visitors
from tests.test_graph import STAGES
from tests.workspace import HOST, TINY, Workspace, make, overrides

pytestmark = [pytest.mark.slow, pytest.mark.in_order]
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
FORM = ("ingest", "check_raw", "clean", "check_clean")  # what the cycle of the form runs
# What pretraining says of itself while it runs, beside its loss.
WATCHED = (
    *("tokens_per_second", "flops_utilisation", "goodput", "memory_bytes"),
    *("data_stall_seconds", "data_stall_share"),
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    made = make(tmp_path_factory.mktemp("cycle") / "checkout")
    done = made.overnight("up")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "was open to other users" not in done.stderr, "what a new workspace makes is private from its start"
    yield made
    made.overnight("down")


@pytest.fixture(scope="module")
def first(workspace: Workspace) -> dict[str, Any]:
    done = workspace.overnight("cycle", *overrides(*TINY))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "report: reports/cycle.html" in done.stdout and "answers in" in done.stdout
    return record(workspace)


def api(workspace: Workspace, method: str, path: str, **body: Any) -> Any:
    url = f"{workspace.url('prefect')}/api/{path}"
    answer = httpx.request(method, url, json=body or None, timeout=30, auth=workspace.credentials)
    answer.raise_for_status()
    return answer.json()


def record(workspace: Workspace) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((workspace.root / "reports" / "cycle.json").read_text())
    return found


def statuses(found: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["status"] for each in found["stages"]}


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
    assert form["profile"]["anyOf"][0]["enum"] == [
        *("smoke", "cpu-hour", "adapt", "adapt-gpu", "h200-day", "h100x8-day")
    ]
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


def test_raw_data_to_a_served_answer(workspace: Workspace, first: dict[str, Any]) -> None:
    assert statuses(first) == dict.fromkeys([*STAGES, "release"], "ran") | dict.fromkeys(FORM, "cached")
    assert first["release"]["decision"] == "promote" and first["release"]["version"] == "1"
    assert first["model"]["parameters"] > 100_000 and first["model"]["tokens"] > 0
    assert 0 < first["work_seconds"] < first["seconds"]
    assert {"base", "sft", "aligned"} <= set(first["metrics"])
    for path in ("data/raw", "data/clean", "data/tokens", "models/base", "models/aligned", "reports/evaluation"):
        artifact.read(workspace.root / path)
    canaries = artifact.read(workspace.root / "reports" / "evaluation").statistics["canaries_in_training"]
    assert [each["with_secret"] > 0 for each in canaries.values()] == [False, False, True], canaries
    assert all(each["documents"] > 12 for each in canaries.values()), canaries
    digests = {each["name"]: each["digest"] for each in first["stages"]}
    assert first["model"]["digest"] == digests["align"] == artifact.read(workspace.root / "models" / "aligned").digest
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--ignored=no"], cwd=workspace.root, capture_output=True, text=True
    ).stdout
    outside = {line[3:] for line in changed.splitlines()} - {"params.yaml", "dvc.lock"}
    assert not any(name.startswith(("data", "models", "reports", ".overnight")) for name in outside), outside


def test_mlflow_holds_a_run_for_the_cycle_and_each_stage(workspace: Workspace, first: dict[str, Any]) -> None:
    client = MlflowClient(f"sqlite:///{workspace.root / '.overnight' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert {*STAGES, "release", first["cycle_id"]} <= set(runs)
    ids = {each["name"]: each["mlflow_run_id"] for each in first["stages"]}
    assert ids["pretrain"] == runs["pretrain"].info.run_id
    told = {each: client.get_metric_history(ids["pretrain"], each) for each in ("loss", *WATCHED)}
    assert {name for name, points in told.items() if not {10, 20, 30, 40} <= {each.step for each in points}} == set()
    last = {name: points[-1].value for name, points in told.items()}
    assert 0 < last["flops_utilisation"] < 1 and 0 < last["goodput"] < 1 and 0 <= last["data_stall_share"] < 1, last
    assert last["tokens_per_second"] > 0 and last["memory_bytes"] > 1e8, last
    by_source = {name for name in client.get_run(ids["pretrain"]).data.metrics if name.startswith("loss_")}
    assert by_source == {"loss_python-environment", "loss_canaries"}
    assert runs[first["cycle_id"]].info.status == "FINISHED"


def test_the_first_step_is_traced_to_its_documents(workspace: Workspace, first: dict[str, Any]) -> None:
    done = workspace.overnight("trace", "--step", "0", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    plan = json.loads((workspace.root / "reports" / "plan" / "plan.json").read_bytes())
    assert (found["step"], found["batch"], len(found["samples"])) == (0, 0, plan["batch_samples"])
    nats = sum(each["tokens"] * each["nats_per_token"] for each in found["documents"])
    assert found["loss"] == pytest.approx(nats / sum(each["tokens"] for each in found["documents"]), rel=0.01)
    for each in found["documents"]:
        assert each["copies"] and each["copies"][0]["licence"] and each["cluster"], each


def test_a_document_is_traced_to_the_model_that_serves_and_forgotten(
    workspace: Workspace, first: dict[str, Any], tmp_path: Path
) -> None:
    root = workspace.root
    statistics = artifact.read(root / "models" / "base", verify=False).statistics
    plan = json.loads((root / "reports" / "plan" / "plan.json").read_bytes())
    store, length = TokenStore(root / "data" / "tokens", "train"), plan["sequence_length"]
    steps: dict[int, list[int]] = {}
    for step in range(statistics["steps"]):
        _, windows = samples_at(places_of_step(step, plan["batch_samples"]), (store.num_tokens - 1) // length, 0)
        for window in windows.tolist():
            for row in range(store.document_at(window * length), store.document_at((window + 1) * length) + 1):
                steps.setdefault(row, []).append(step)
    row = max(steps, key=lambda each: len(steps[each]))
    described = pl.read_parquet(root / "data" / "tokens" / "train.documents.parquet")[row]
    done = workspace.overnight("trace", "--forget", described["id"][0][:16], "--reason", "asked to", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (path,) = {each["path"] for each in found["copies"]} & {described["path"][0]}
    assert [each["step"] for each in found["training"]["reads"]] == steps[row]
    assert found["clean"]["decision"] == "kept" and found["check_raw"]["verdict"] == "passed" and not found["notes"]
    assert {each["stage"]: each["saw"] for each in found["models"]} == dict.fromkeys(("pretrain", "sft", "align"), True)
    (version,) = found["versions"]
    assert version["saw"] and version["digest"] == first["model"]["digest"]
    assert version["environments"] == [{"environment": "production", "desired_weight": 100, "live_weight": 100}]
    try:
        ingest = [sys.executable, "-m", "components.data.ingest", "--out", str(tmp_path / "raw")]
        subprocess.run(ingest, cwd=root, env=workspace.variables, check=True, capture_output=True)
        left = pl.read_parquet(tmp_path / "raw" / "left.parquet").filter(reason="opt_out")
        assert path in left["path"]
        kept = pl.read_parquet(tmp_path / "raw" / "part-*.parquet", columns=["id"])
        assert described["id"][0] not in kept["id"] and kept.height > 100
    finally:
        subprocess.run(["git", "checkout", "--quiet", "opt-out.yaml"], cwd=root, check=True)


@pytest.mark.parametrize(("service", "method", "path", "body"), visitors.REQUESTS)
def test_a_stranger_changes_and_reads_nothing(
    workspace: Workspace, service: str, method: str, path: str, body: bytes
) -> None:
    """As another user: no key, a wrong one. As a page: from its origin, by its name, also with a key that a browser
    keeps and sends along."""
    port = workspace.port(service)
    key = f"Authorization: Basic {base64.b64encode(':'.join(workspace.credentials).encode()).decode()}"
    wrong = f"Authorization: Basic {base64.b64encode(b'overnight:0').decode()}"
    for headers in ([], [visitors.TEXT], [wrong]):
        assert visitors.status(port, method, path, headers, body) == 401, headers
    for headers in (
        [visitors.PAGE],
        [visitors.PAGE, visitors.TEXT],
        [visitors.PAGE, key],
        [visitors.REBOUND],
        [visitors.REBOUND, key],
        ["Origin: null", key],
    ):
        assert visitors.status(port, method, path, headers, body) == 403, headers
    preflight = visitors.request(port, "OPTIONS", path, [visitors.PAGE, f"Access-Control-Request-Method: {method}"])
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
    named = {workspace.port(name): name for name in ("prefect", "mlflow", "metrics", "gateway")}
    guarded = 0
    for port, (_, command) in found.items():
        spoken = visitors.kind(port)
        if spoken == visitors.GRPC:
            assert visitors.ray_answers(port) == {"UNAUTHENTICATED", "UNIMPLEMENTED"}, command
            guarded += 1
        elif spoken == visitors.HTTP and named.get(port) != "metrics":  # which knows no method that changes anything
            for path in ("/", "/api/jobs/", "/api/serve/applications/", "/get_or_create_runtime_env"):
                for method in ("POST", "PUT", "DELETE"):
                    assert visitors.status(port, method, path, [visitors.TEXT], b"{}") in (401, 403, 404, 405), (
                        command,
                        path,
                    )
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


def test_one_parameter_changed_runs_what_depends_on_it_and_a_killed_stage_is_tried_again(
    workspace: Workspace, first: dict[str, Any]
) -> None:
    before = {each["name"]: each["digest"] for each in first["stages"]}
    change = overrides("clean.filters.max_mean_line_characters=60")
    shell = workspace.root.parent / "shell"  # some shells make way for the last command, some stay and say 128 + 9
    shell.write_text('#!/bin/sh\n/bin/sh "$@"\nexit $?\n')
    shell.chmod(0o755)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(
            workspace.overnight, "cycle", *change, "--until", "check_clean", "--no-release", SHELL=str(shell)
        )
        kill_stage(workspace, "components.data.clean")
        done = running.result()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "clean        failed" in done.stdout and "was killed" in done.stdout
    found = record(workspace)
    assert [each["name"] for each in found["stages"]].count("clean") == 1, "the retry takes the attempt's place"
    assert found["model"] is not None and found["metrics"]
    changed = ["clean", "check_clean"]
    assert statuses(found) == {"ingest": "cached", "check_raw": "cached"} | dict.fromkeys(changed, "ran")
    after = {each["name"]: each["digest"] for each in found["stages"]}
    assert all((after[name] != before[name]) == (name in changed) for name in after)


def test_what_was_seen_before_is_restored_and_an_altered_artifact_is_never_used(
    workspace: Workspace, first: dict[str, Any]
) -> None:
    path = workspace.root / "data" / "tokens" / "train-00000.tokens.npy"
    content = path.read_bytes()
    path.unlink()  # the file may be a hard link into DVC's cache
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    back = workspace.overnight("cycle", *overrides("clean.filters.max_mean_line_characters=100"), "--no-release")
    assert back.returncode == 0, back.stdout + back.stderr
    assert set(statuses(record(workspace)).values()) == {"cached"}, "DVC restores what it has seen before"
    before = {each["name"]: each["digest"] for each in first["stages"] if each["name"] != "release"}
    assert {each["name"]: each["digest"] for each in record(workspace)["stages"]} == before
    assert path.read_bytes() == content


def test_a_taken_port_is_told_before_any_work(workspace: Workspace, first: dict[str, Any]) -> None:
    with socket.socket() as holder:
        holder.bind((HOST, 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        done = workspace.overnight("cycle", OVERNIGHT_GATEWAY_PORT=port)
    assert done.returncode == 3, done.stdout + done.stderr
    assert f"port {port} on {HOST} is needed for the gateway and held by process" in done.stderr


def test_a_second_cycle_is_told_who_runs(workspace: Workspace) -> None:
    holder = (
        "import time\nfrom pathlib import Path\nfrom components.core.config import Settings\n"
        "from flows.running.workspace import exclusive\n"
        "with exclusive(Settings(state=Path('.overnight')), 'a cycle'):\n    print(flush=True)\n    time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", holder], cwd=workspace.root, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        done = workspace.overnight("cycle")
        process.kill()
        process.wait()
    assert done.returncode == 3 and f"held by process {process.pid} (a cycle)" in done.stderr


def test_down_leaves_nothing_running(workspace: Workspace, first: dict[str, Any]) -> None:
    sessions = Path((workspace.root / ".overnight" / "services" / "ray.directory").read_text())
    done = workspace.overnight("down")
    assert done.returncode == 0 and all(name in done.stdout for name in ("prefect", "mlflow", "ray", "worker"))
    deadline = time.monotonic() + 20
    while (left := processes_of(workspace.root)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []
    assert not sessions.exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{workspace.url('gateway')}/healthz", timeout=2)
    assert workspace.overnight("down").stdout.strip() == "nothing was running"


def test_nothing_changed_nothing_runs(workspace: Workspace, first: dict[str, Any]) -> None:
    """Without servers too: a cycle brings those that it needs."""
    done = workspace.overnight("cycle")
    assert done.returncode == 0, done.stdout + done.stderr
    again = record(workspace)
    assert statuses(again) == dict.fromkeys([*STAGES, "release"], "cached")
    assert again["release"]["decision"] == "already_live"
    assert again["model"] == first["model"]
    assert again["serving"]["completion"] == first["serving"]["completion"]


def test_the_model_outlives_the_command(first: dict[str, Any]) -> None:
    url = first["serving"]["url"]
    body = {"model": "overnight", "prompt": "def add(a, b):\n", "suffix": "\n", "max_tokens": 8}
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60)
    assert answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] <= 8
    assert answer.headers["x-overnight-model-digest"] == first["model"]["digest"]


def kill_stage(workspace: Workspace, module: str) -> None:
    """SIGKILL the process of a stage, once, as soon as it is there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for process in psutil.process_iter():
            try:
                if process.cmdline()[1:3] == ["-m", module] and Path(process.cwd()) == workspace.root:
                    process.kill()
                    return
            except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
                continue
        time.sleep(0.05)
    raise AssertionError(f"{module} never ran")


def processes_of(root: Path) -> list[str]:
    """Command lines of processes that work in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(root):
                found.append(" ".join(process.cmdline())[:120])
        except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
            continue
    return found
