"""The whole path, as a user runs it: one tiny cycle from raw data to a served answer, and what people do next."""

import json
import socket
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

from components.core import artifact
from components.tokens.order import places_of_step, samples_at
from components.tokens.store import TokenStore
from flows.tracking import EXPERIMENT
from tests.test_graph import STAGES
from tests.workspace import HOST, TINY, Workspace, make, overrides

pytestmark = [pytest.mark.slow, pytest.mark.in_order]
# What pretraining says of itself while it runs, beside its loss.
WATCHED = (
    *("tokens_per_second", "flops_utilisation", "goodput", "memory_bytes"),
    *("data_stall_seconds", "data_stall_share"),
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    made = make(tmp_path_factory.mktemp("cycle") / "checkout")
    yield made
    made.overnight("down")


@pytest.fixture(scope="module")
def first(workspace: Workspace) -> dict[str, Any]:
    done = workspace.overnight("cycle", *overrides(*TINY))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "report: reports/cycle.html" in done.stdout and "answers in" in done.stdout
    assert "was open to other users" not in done.stderr, "what a new workspace makes is private from its start"
    return record(workspace)


def record(workspace: Workspace) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((workspace.root / "reports" / "cycle.json").read_text())
    return found


def statuses(found: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["status"] for each in found["stages"]}


def test_raw_data_to_a_served_answer(workspace: Workspace, first: dict[str, Any]) -> None:
    assert statuses(first) == dict.fromkeys([*STAGES, "release"], "ran")
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


def test_the_model_outlives_the_command(first: dict[str, Any]) -> None:
    url = first["serving"]["url"]
    body = {"model": "overnight", "prompt": "def add(a, b):\n", "suffix": "\n", "max_tokens": 8}
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60)
    assert answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] <= 8
    assert answer.headers["x-overnight-model-digest"] == first["model"]["digest"]


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


def test_nothing_changed_nothing_runs(workspace: Workspace, first: dict[str, Any]) -> None:
    done = workspace.overnight("cycle")
    assert done.returncode == 0, done.stdout + done.stderr
    again = record(workspace)
    assert statuses(again) == dict.fromkeys([*STAGES, "release"], "cached")
    assert again["release"]["decision"] == "already_live"
    assert again["model"] == first["model"]
    assert again["serving"]["completion"] == first["serving"]["completion"]


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
            workspace.overnight, "cycle", *change, "--until", "tokenize", "--no-release", SHELL=str(shell)
        )
        kill_stage(workspace, "components.data.clean")
        done = running.result()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "clean        failed" in done.stdout and "was killed" in done.stdout
    found = record(workspace)
    assert [each["name"] for each in found["stages"]].count("clean") == 1, "the retry takes the attempt's place"
    assert found["model"] is not None and found["metrics"]
    changed = ["clean", "check_clean", "vocabulary", "tokenize"]
    assert statuses(found) == {"ingest": "cached", "check_raw": "cached"} | dict.fromkeys(changed, "ran")
    after = {each["name"]: each["digest"] for each in found["stages"]}
    assert all((after[name] != before[name]) == (name in changed) for name in after)
    back = workspace.overnight("cycle", *overrides("clean.filters.max_mean_line_characters=100"), "--no-release")
    assert back.returncode == 0, back.stdout + back.stderr
    assert set(statuses(record(workspace)).values()) == {"cached"}, "DVC restores what it has seen before"
    assert {each["name"]: each["digest"] for each in record(workspace)["stages"]} == {
        name: digest for name, digest in before.items() if name != "release"
    }


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
        "from flows.workspace import exclusive\n"
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


def test_an_altered_artifact_is_named_and_never_used(workspace: Workspace, first: dict[str, Any]) -> None:
    path = workspace.root / "data" / "tokens" / "train-00000.tokens.npy"
    content = path.read_bytes()
    path.unlink()  # the file may be a hard link into DVC's cache
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    done = workspace.overnight("cycle", *overrides("plan.fixed.steps=41"), "--until", "plan", "--no-release")
    assert done.returncode == 0, done.stdout + done.stderr
    assert statuses(record(workspace))["tokenize"] == "cached", "restored from DVC's cache"
    assert path.read_bytes() == content


def test_down_leaves_nothing_running(workspace: Workspace, first: dict[str, Any]) -> None:
    done = workspace.overnight("down")
    assert done.returncode == 0 and "ray" in done.stdout
    deadline = time.monotonic() + 20
    while (left := processes_of(workspace.root)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{workspace.url('gateway')}/healthz", timeout=2)
    assert workspace.overnight("down").stdout.strip() == "nothing was running"


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
