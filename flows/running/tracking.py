"""Forward the events of stages to MLflow: one parent run per cycle, one nested run per stage.

Stages never wait for MLflow: they append to files, and one thread in the cycle's process reads those and sends them in
batches. How far it came stands beside the events, so an outage only delays: the next cycle sends what is left, also of
cycles that were killed and of stages that were run by a plain `dvc repro`.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from components.core.artifact import write_file
from components.core.config import Settings
from components.core.errors import one_line
from components.core.events import read_events
from components.release.registry import artifact_root, first_use, tracking_uri

EXPERIMENT = "overnight"
STATE = "forwarded.json"
BATCH = 900  # the server takes up to 1,000 metrics in one call
PERIOD_SECONDS = 2.0


class Forwarder:
    """Sends what is new since the last call. Not thread-safe: one caller at a time."""

    def __init__(self, settings: Settings) -> None:
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        with first_use(settings):
            self._client = MlflowClient(tracking_uri=tracking_uri(settings))
            self._client.get_experiment_by_name(EXPERIMENT)
        self._root = settings.state / "events"
        self._artifacts = artifact_root(settings)
        self._experiment: str | None = None

    def forward_all(self) -> None:
        """Send every event of every cycle that was not sent yet. Raises MlflowException or OSError in an outage."""
        if self._root.is_dir():
            for folder in sorted(path for path in self._root.iterdir() if path.is_dir()):
                self.forward(folder.name)

    def forward(self, cycle: str) -> None:
        """Send the unsent events of one cycle, in order, each batch once as far as its state could be written."""
        folder = self._root / cycle
        state = self._read(folder)
        for path in sorted(folder.glob("*.jsonl")):
            stage = path.stem
            known = state["stages"].get(stage, {"run": None, "offset": 0})
            events, offset = read_events(path, known["offset"])
            if not events:
                continue
            if state["parent"] is None:
                state["parent"] = self._create_run(cycle, None, events[0])
                self._write(folder, state)
            if stage == "cycle":
                run = state["parent"]
            else:
                run = known["run"] or self._create_run(stage, state["parent"], events[0])
            state["stages"][stage] = {"run": run, "offset": known["offset"]}
            self._write(folder, state)
            self._send(run, events)
            state["stages"][stage]["offset"] = offset
            self._write(folder, state)

    def run_ids(self, cycle: str) -> dict[str, str]:
        """MLflow run ids of a cycle's stages; `cycle` is the parent's."""
        state = self._read(self._root / cycle)
        runs = {stage: each["run"] for stage, each in state["stages"].items()}
        return runs | ({"cycle": state["parent"]} if state["parent"] else {})

    def _create_run(self, name: str, parent: str | None, first: dict[str, Any]) -> str:
        tags = {MLFLOW_RUN_NAME: name} | ({MLFLOW_PARENT_RUN_ID: parent} if parent else {})
        run = self._client.create_run(
            self._experiment_id(), start_time=int(first["time"] * 1000), tags=tags, run_name=name
        )
        return str(run.info.run_id)

    def _experiment_id(self) -> str:
        if self._experiment is None:
            experiment = self._client.get_experiment_by_name(EXPERIMENT)
            self._experiment = (
                experiment.experiment_id if experiment else self._client.create_experiment(EXPERIMENT, self._artifacts)
            )
        return str(self._experiment)

    def _send(self, run: str, events: list[dict[str, Any]]) -> None:
        metrics = [
            Metric(each["name"], each["value"], int(each["time"] * 1000), int(each["step"]))
            for each in events
            if each["kind"] == "metric"
        ]
        params = {each["name"]: json.dumps(each["value"])[:6000] for each in events if each["kind"] == "parameter"}
        tags = {each["name"]: str(each["value"])[:5000] for each in events if each["kind"] == "tag"}
        for each in events:
            if each["kind"] == "finished":
                tags["digest"] = each["digest"]
                self._log_inputs(run, each.get("inputs", []))
            elif each["kind"] == "failed":
                tags["error"] = each["error"][:5000]
        for batch in _batches(metrics):
            self._client.log_batch(run, metrics=batch)
        for names in _batches(sorted(params), 90):
            self._client.log_batch(run, params=[Param(name, params[name]) for name in names])
        for names in _batches(sorted(tags), 90):
            self._client.log_batch(run, tags=[RunTag(name, tags[name]) for name in names])
        for each in events:
            if each["kind"] == "artifact" and Path(each["path"]).is_file():
                self._client.log_artifact(run, each["path"])
            elif each["kind"] in ("finished", "failed"):
                status = RunStatus.to_string(RunStatus.FINISHED if each["kind"] == "finished" else RunStatus.FAILED)
                self._client.set_terminated(run, status, int(each["time"] * 1000))

    def _log_inputs(self, run: str, inputs: list[dict[str, str]]) -> None:
        """The artifacts that a stage read, as MLflow datasets. MLflow keeps 36 characters of a digest."""
        datasets = [
            DatasetInput(
                Dataset(name=each["stage"], digest=each["digest"][:36], source_type="overnight", source=each["digest"]),
                [InputTag("mlflow.data.context", "input")],
            )
            for each in inputs
        ]
        if datasets:
            self._client.log_inputs(run, datasets)

    @staticmethod
    def _read(folder: Path) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads((folder / STATE).read_text())
            return state
        except FileNotFoundError:
            return {"parent": None, "stages": {}}

    @staticmethod
    def _write(folder: Path, state: dict[str, Any]) -> None:
        write_file(folder / STATE, json.dumps(state).encode())


def _batches(items: list[Any], size: int = BATCH) -> Iterable[list[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


class LiveForwarder:
    """A thread that forwards every two seconds and tells once when MLflow goes and when it is back."""

    def __init__(self, settings: Settings, cycle: str, note: Callable[[str], None]) -> None:
        self._settings = settings
        self._cycle = cycle
        self._note = note
        self._stopping = threading.Event()
        self._down = False
        self._forwarder: Forwarder | None = None
        self._thread = threading.Thread(target=self._loop, name="mlflow-forwarder", daemon=True)
        self._thread.start()

    def close(self, timeout_seconds: float = 30) -> dict[str, str]:
        """Send the rest, as far as it can be sent in time, and return the run ids that MLflow gave."""
        self._stopping.set()
        self._thread.join(timeout_seconds)
        return self._forwarder.run_ids(self._cycle) if self._forwarder else {}

    def _loop(self) -> None:
        caught_up = False
        while True:
            last = self._stopping.is_set()
            try:
                self._forwarder = self._forwarder or Forwarder(self._settings)
                if caught_up:
                    self._forwarder.forward(self._cycle)
                else:
                    self._forwarder.forward_all()
                    caught_up = True
                if self._down:
                    self._note("MLflow is back; what was kept has been sent")
                self._down = False
            except (MlflowException, OSError) as error:
                if not self._down:
                    self._note(f"MLflow does not answer ({one_line(error)}); metrics are kept and sent later")
                self._down = True
            if last:
                return
            self._stopping.wait(PERIOD_SECONDS)
