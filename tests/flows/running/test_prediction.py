"""A cycle holds the prediction of its plan against what pretraining reached, with a real stage that DVC runs."""

import subprocess
import sys
from pathlib import Path

import pytest

from components.core.config import read_settings
from components.core.graph.closure import ROOT
from components.core.graph.stages import read_stages
from components.training.config import PlanConfig, Prediction
from components.training.plan import plan_fixed
from components.training.planning import predictions
from dashboards.report import cycle_record
from flows import cycle

STAGES = """
stages:
  pretrain:
    cmd: python -m make
    deps: [found]
    outs: [models/base]
    meta: {writes: base_model}
  plan:
    cmd: python -m plan
    outs: [reports/plan]
    meta: {writes: training_plan}
"""
MAKE = """
from pathlib import Path
from components.core import artifact
from components.core.config import StepConfig
from components.core.events import Events
found = float(Path("found").read_text())
code = Path(artifact.__file__)
with artifact.create(Path("models/base"), stage="pretrain", config=StepConfig(), inputs=[], code=code) as draft:
    draft.statistics = {"parameters": 1_000, "tokens": 5_000, "validation_bits_per_byte": found}
Events("pretrain").write("finished", seconds=0.1, digest="", inputs=[], statistics={})
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of one stage, with a plan that predicts 1.5 bits per byte, 1.4 to 1.6."""
    root = tmp_path / "checkout"
    (root / "models").mkdir(parents=True)
    (root / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (root / "dvc.yaml").write_text(STAGES)
    (root / "make.py").write_text(MAKE)
    expected = Prediction(low=1.4, value=1.5, high=1.6, unit="bits per byte")
    plan = plan_fixed(PlanConfig(mode="fixed"), 4096).model_copy(update={"predicted": expected})
    path = root / "reports" / "plan" / "plan.json"
    path.parent.mkdir(parents=True)
    path.write_text(plan.model_dump_json())
    monkeypatch.chdir(root)
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("RAY_ADDRESS", "local")  # the stage needs none
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for command in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
        subprocess.run(command, check=True)
    return root


def test_what_was_found_is_kept_beside_what_was_predicted_and_told_once(checkout: Path) -> None:
    told = []
    for found in ("1.55", "1.7", "1.7"):
        (checkout / "found").write_text(found)
        current = cycle.Cycle(read_settings(), None, ())
        result = current.bring_up_to_date(read_stages()[0], lambda detail, share: None)
        current.progress.close()
        told.append((result.status, current.notes))
    line = "predicted 1.500 bits per byte (1.400 to 1.600), found "
    assert told == [("ran", [f"{line}1.550"]), ("ran", [f"{line}1.700"]), ("cached", [])]
    rows = predictions.read(cycle_record.REPORTS / "laws")
    assert [(each["found"], each["inside"]) for each in rows] == [(1.55, True), (1.7, False)]
