"""CONTRIBUTING's steps, followed in a checkout of its own: a module, its config, its entry, and the stage runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

from components.core import artifact
from components.core.graph.stages import read_stages
from tests import architecture, workspace

CONFIG = '''

class LongestLinesConfig(StepConfig):
    """Parameters of a stage that finds the longest lines."""

    lines: int = Field(2, ge=1, description="how many are kept")
'''
MODULE = '''"""Keep the longest lines.

Reads   a text
Writes  longest.txt
"""

from pathlib import Path

from components.core import artifact
from components.core.artifact import Manifest
from components.core.step import main
from components.data.config import LongestLinesConfig


def run(config: LongestLinesConfig, *, source: Path, out: Path) -> Manifest:
    """Write longest.txt."""
    lines = sorted(source.read_text().splitlines(), key=len)[-config.lines :]
    with artifact.create(out, stage="longest_lines", config=config, inputs=(), code=Path(__file__)) as draft:
        (draft.path / "longest.txt").write_text("\\n".join(lines))
    assert draft.manifest is not None
    return draft.manifest


if __name__ == "__main__":
    main("longest_lines", LongestLinesConfig, run)
'''
ENTRY = """
  longest_lines:
    cmd: python -m components.data.longest_lines --source opt-out.yaml --out data/longest_lines
    params: [longest_lines]
    deps:
      - opt-out.yaml
      - .overnight/code/longest_lines.json
    outs: [data/longest_lines]

metrics:"""
SURVEY = """
from components.core.graph.stages import read_all
from components.lineage import survey
from flows.running.params import compose, write_params
write_params(compose("smoke"))
survey.run(next(each.arguments for each in read_all() if each.meta.survey))
"""


def python(root: Path, *arguments: str) -> str:
    """What a command of the checkout prints; it has to succeed."""
    variables = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=root, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_stage_is_its_module_its_config_its_entry_and_its_test(tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    workspace.make(root)
    with (root / "components" / "data" / "config.py").open("a") as config:
        config.write(CONFIG)
    (root / "components" / "data" / "longest_lines.py").write_text(MODULE)
    graph = (root / "dvc.yaml").read_text()
    (root / "dvc.yaml").write_text(graph.replace("\nmetrics:", ENTRY, 1))
    before = [each.name for each in read_stages()]
    assert [each.name for each in read_stages(root)] == [*before, "longest_lines"]
    assert architecture.violations(root) == []

    python(root, "-c", SURVEY)
    assert "\nlongest_lines:\n  lines: 2  # how many are kept\n" in (root / "params.yaml").read_text()
    code = json.loads((root / ".overnight" / "code" / "longest_lines.json").read_text())
    assert {"components/data/longest_lines.py", "components/core/step.py"} <= code.keys()

    assert "Running stage 'longest_lines'" in python(root, "-m", "dvc", "repro", "--single-item", "longest_lines")
    assert artifact.read(root / "data" / "longest_lines").config == {"lines": 2}
    module = root / "components" / "data" / "longest_lines.py"
    module.write_text(module.read_text().replace("sorted(", "sorted  ("))
    python(root, "-c", SURVEY)
    assert "Running stage 'longest_lines'" in python(root, "-m", "dvc", "repro", "--single-item", "longest_lines")
