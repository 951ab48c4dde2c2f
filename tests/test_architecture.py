"""Layers run one way, the engine is plain torch, no pickle, and each rule is shown to catch a planted violation."""

import shutil
from pathlib import Path

import pytest

from components.core.graph.closure import ROOT
from tests.architecture import LAYERS, MAX_FILES, OUTSIDE, circle, violations


def test_the_house_keeps_its_rules() -> None:
    assert violations(ROOT) == []


def test_every_area_is_known() -> None:
    areas = {path.name for path in (ROOT / "components").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert areas == set(LAYERS) - set(OUTSIDE)


def test_no_module_waits_for_itself(tmp_path: Path) -> None:
    assert circle(ROOT) == []
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / "flows").mkdir(exist_ok=True)
        (tmp_path / "flows" / f"{name}.py").write_text(f"from flows import {other}")
    assert set(circle(tmp_path)) == {"flows.a", "flows.b"}


def test_a_full_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "flows").mkdir()
    for number in range(MAX_FILES + 1):
        (tmp_path / "flows" / f"m{number}.py").touch()
    shutil.copyfile(ROOT / "dvc.yaml", tmp_path / "dvc.yaml")
    assert violations(tmp_path) == [f"flows: 16 files; give some of them a room, at most {MAX_FILES} fit"]


@pytest.mark.parametrize(
    ("place", "text", "said"),
    [
        ("components/data/x.py", "from components.training.plan import run", "data imports training"),
        ("components/core/x.py", "import components.release.gate", "core imports release"),
        ("components/deadline/x.py", "from components.training.config import Plan", "deadline imports training"),
        ("components/serving/x.py", "def f():\n    from components.release import gate", "serving imports release"),
        ("components/data/x.py", "import prefect.flows", "imports prefect"),
        ("components/training/x.py", "import mlflow", "imports mlflow"),
        ("components/release/x.py", "from flows.cycle import cycle", "release imports flows"),
        ("dashboards/x.py", "from flows.cycle import cycle", "dashboards imports flows"),
        ("components/core/x.py", "from components.machine.services import x", "core imports machine"),
        ("components/training/engine/loop.py", "import ray", "the engine imports ray"),
        ("components/training/engine/loop.py", "from components.core import events", "the engine imports components"),
        ("components/core/x.py", "from . import config", "relative import"),
        ("flows/x.py", "import pickle", "imports pickle"),
        ("flows/x.py", "\n" * 700, "longer than 600 lines"),
        ("flows/x.py", 'LAST = ("a", "align")', "names the stage align"),
        ("components/training/pretrain.py", "def f(x):\n    return x['sft'] or x['pretrain']", "names the stage sft"),
        ("components/data/x.py", "def f(x):\n    return f'{x}: run models/base/x again'", "names models/base, a path"),
    ],
)
def test_a_planted_violation_is_caught(tmp_path: Path, place: str, text: str, said: str) -> None:
    planted = tmp_path / place
    planted.parent.mkdir(parents=True)
    planted.write_text(text)
    shutil.copyfile(ROOT / "dvc.yaml", tmp_path / "dvc.yaml")
    (found,) = violations(tmp_path)
    assert found.startswith(f"{place}:") and said in found


def test_what_is_allowed_is_not_called_a_violation(tmp_path: Path) -> None:
    for place, text in {
        "components/release/x.py": "import mlflow\nfrom components.core.errors import DataError",
        "components/training/engine/loop.py": "import torch, math\n"
        "from components.training.engine.model.architectures import build",
        "flows/x.py": "import prefect, mlflow\nfrom components.release import gate",
        "components/data/clean.py": "'Reads data/raw'\nSTAGE = 'clean'\nTEXT = 'align, sft and clean'",
    }.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text)
    shutil.copyfile(ROOT / "dvc.yaml", tmp_path / "dvc.yaml")
    assert violations(tmp_path) == []
