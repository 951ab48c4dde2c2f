"""The benchmark of a bare GPU box, run on a CPU where nothing else can be imported."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gpu_pretrain import main
from tests.margins import Margins

pytestmark = pytest.mark.numeric

ROOT = Path(__file__).parents[2]
# What such a box has; everything else that the project installs is hidden.
BARE = """
import importlib.abc, runpy, sys
hidden = {"pydantic", "polars", "ray", "pyarrow", "mlflow", "prefect", "dvc", "yaml", "trl", "peft", "rich", "typer"}
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in hidden and sys._getframe(1).f_code.co_name == "_find_spec":
            importer = next(f for f in iter_frames() if not f.f_code.co_filename.startswith("<frozen importlib"))
            if "/components/" in importer.f_code.co_filename or "/benchmarks/" in importer.f_code.co_filename:
                raise SystemExit(f"{importer.f_code.co_filename} imports {name}")
        return None
def iter_frames():
    frame = sys._getframe(2)
    while frame:
        yield frame
        frame = frame.f_back
sys.meta_path.insert(0, Hidden())
sys.argv = ["gpu_pretrain", *sys.argv[1:]]
runpy.run_module("benchmarks.gpu_pretrain", run_name="__main__")
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command on a bare box."""
    command = [sys.executable, "-c", BARE, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_the_table_comes_out_with_torch_and_transformers_alone(tmp_path: Path, margins: Margins) -> None:
    tokens = np.tile(np.arange(64, dtype=np.uint16), 300)
    np.save(tmp_path / "tokens.npy", tokens)
    out = tmp_path / "rows.json"
    given = ["--device", "cpu", "--size", "tiny", "--mode", "eager", "--steps", "12"]
    given += ["--accelerators", "none", "graphs", "float8"]
    done = run(*given, "--tokens", str(tmp_path / "tokens.npy"), "--json", str(out))
    assert done.returncode == 0, done.stderr[-2000:]
    row, eight = json.loads(out.read_text())
    assert f"{row['tokens_per_second']:,.0f}" in done.stdout
    assert 0 < row["share_of_gemm"] < 1
    assert row["share_of_data_sheet"] is None
    # The next of 64 tokens in order can be learned.
    margins.effect("fall of the loss", row["first_loss"] - row["last_loss"], least=0.5)
    assert (row["accelerators"], eight["accelerators"]) == ([], ["float8"])
    assert eight["last_loss"] != row["last_loss"]
    margins.error("loss in 8 bits", abs(eight["last_loss"] / row["last_loss"] - 1), most=0.05)
    assert "left out: graphs: found device cpu, needed cuda" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("no CUDA device is seen by torch")
    assert line.endswith("--device cpu --size tiny")
