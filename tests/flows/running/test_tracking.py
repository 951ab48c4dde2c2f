"""Events reach a real MLflow once each, also after an outage; a cycle never waits for it."""

import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from components.core.config import Settings
from components.core.events import Events
from components.release.registry import tracking_uri
from flows.running.tracking import EXPERIMENT, Forwarder, LiveForwarder

UNREACHABLE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(state=tmp_path_factory.mktemp("tracking"), cycle="one")


def write_cycle(settings: Settings) -> None:
    Events("cycle", settings).write("started")
    events = Events("pretrain", settings)
    events.write("started")
    events.parameter("layers", 4)
    for step in range(2000):
        events.metric("loss", 5 - step / 1000, step)
    events.write(
        "finished", seconds=1.0, digest="d" * 64, inputs=[{"stage": "tokenize", "digest": "e" * 64}], statistics={}
    )
    Events("sft", settings).write("failed", error="out of memory", exit_code=1)
    Events("cycle", settings).write("failed", error="sft: out of memory", exit_code=1)


def test_one_run_a_cycle_and_one_nested_run_a_stage(settings: Settings) -> None:
    write_cycle(settings)
    forwarder = Forwarder(settings)
    forwarder.forward_all()
    forwarder.forward_all()
    client = MlflowClient(tracking_uri(settings))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"one", "pretrain", "sft"}
    assert {name: run.info.status for name, run in runs.items()} == {
        "one": "FAILED",
        "pretrain": "FINISHED",
        "sft": "FAILED",
    }
    pretrain = runs["pretrain"]
    assert pretrain.data.tags[MLFLOW_PARENT_RUN_ID] == runs["one"].info.run_id
    assert pretrain.data.tags["digest"] == "d" * 64 and runs["sft"].data.tags["error"] == "out of memory"
    assert pretrain.data.params == {"layers": "4"}
    assert [each.dataset.name for each in pretrain.inputs.dataset_inputs] == ["tokenize"]
    history = client.get_metric_history(pretrain.info.run_id, "loss")
    assert [each.step for each in history] == list(range(2000))
    assert forwarder.run_ids("one") == {
        "cycle": runs["one"].info.run_id,
        "pretrain": pretrain.info.run_id,
        "sft": runs["sft"].info.run_id,
    }


def test_an_outage_delays_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    down = Settings(state=tmp_path, cycle="two", mlflow_url=UNREACHABLE)
    write_cycle(down)
    notes: list[str] = []
    live = LiveForwarder(down, "two", notes.append)
    deadline = time.monotonic() + 30
    while not notes and time.monotonic() < deadline:
        time.sleep(0.05)
    assert live.close() == {}
    assert "MLflow does not answer" in notes[0] and "sent later" in notes[0] and len(notes) == 1

    up = Settings(state=tmp_path, cycle="three")
    Events("cycle", up).write("started")
    assert set(LiveForwarder(up, "three", notes.append).close()) == {"cycle"}
    assert set(Forwarder(up).run_ids("two")) == {"cycle", "pretrain", "sft"}
    client = MlflowClient(tracking_uri(up))
    assert len(client.get_metric_history(Forwarder(up).run_ids("two")["pretrain"], "loss")) == 2000
