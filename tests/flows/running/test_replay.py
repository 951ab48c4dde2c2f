"""What a cycle recorded becomes params.yaml of its replay: every decision in its place, everything else untouched."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from components.alignment.config import SftConfig
from components.core import artifact
from components.core.config import StepConfig
from components.core.errors import ConfigError
from components.core.graph.closure import ROOT
from dashboards.report.cycle_record import CycleRecord, ReleaseRecord, write
from flows.running import params, replay
from flows.running.params import defaults

DECIDED: dict[str, dict[str, Any]] = {
    "pretrain": {
        "size": {"layers": 6, "width": 192},
        "steps": 321,
        "decisions": [[120, 330], [200, 321]],
        "precision": "bfloat16",
        "compiled": True,
        "micro_batch_samples": 2,
    },
    "sft": {"max_steps": 300, "decisions": [[4, 40], [20, 44]]},
    "preferences": {"max_chunks": 2},
    "align": {"max_steps": 52, "decisions": []},
}


def record(cycle_id: str = "20261121-010203-abcd", **changes: Any) -> CycleRecord:
    values: dict[str, Any] = {
        "cycle_id": cycle_id,
        "profile": "smoke",
        "started_at": "",
        "finished_at": "",
        "deadline_hours": 0.25,
        "seconds": 890.0,
        "work_seconds": 700.0,
        "peak_memory_bytes": 0,
        "stages": (),
        "metrics": {},
        "model": None,
        "release": ReleaseRecord(decision="not_asked", reasons=(), version=None, environment_commit=None),
        "serving": None,
        "notes": (),
        "error": None,
        "parameters": defaults().model_dump(mode="json"),
        "decided": DECIDED,
        "contents": {"plan": "a", "pretrain": "b", "sft": "c"},
        "machine": {"cores": 2},
        "commit": "1" * 40,
    }
    return CycleRecord.model_validate(values | changes)


@pytest.fixture(autouse=True)
def _in_a_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(ROOT / "dvc.yaml", "dvc.yaml")


def test_every_decision_takes_the_place_of_the_clock() -> None:
    write(record())
    found = params.change(replay.text("20261121-010203-abcd"))[1]
    assert (found.plan.mode, found.plan.fixed.steps, found.plan.fixed.precision) == ("fixed", 321, "bfloat16")
    assert (found.plan.fixed.size.layers, found.plan.fixed.decisions) == (6, ((120, 330), (200, 321)))
    assert (found.sft.max_steps, found.sft.decisions) == (300, ((4, 40), (20, 44)))
    assert found.preferences.max_chunks == 2
    back = found.model_copy(
        update={name: getattr(defaults(), name) for name in ("sft", "preferences", "align")}
        | {"plan": found.plan.model_copy(update={"mode": "deadline", "fixed": defaults().plan.fixed})}
    )
    assert back == defaults(), "nothing else changed"


def test_a_clone_takes_the_file_and_an_unknown_id_names_the_nearest(tmp_path: Path) -> None:
    path = write(record())
    write(record("20261101-000000-ffff"))
    assert replay.find(str(path)).cycle_id == replay.find("20261101-000000-ffff").cycle_id
    assert replay.find(str(tmp_path / "reports/cycles/20261121-010203-abcd.json")).decided == json.loads(
        json.dumps(DECIDED)
    )
    with pytest.raises(ConfigError, match=r"abce\.json does not exist; nearest: 20261121-010203-abcd, 20261101-0"):
        replay.find("20261121-010203-abce")


def test_a_cycle_without_a_model_and_a_foreign_file_are_one_line() -> None:
    write(record(decided={}, error="clean: the disk is full"))
    with pytest.raises(ConfigError, match="that cycle trained no model"):
        replay.find("20261121-010203-abcd")
    Path("other.json").write_text('{"steps": 3}')
    with pytest.raises(ConfigError, match=r"other\.json is not a record"):
        replay.find("other.json")


def test_the_bytes_are_compared_and_not_the_parameters(tmp_path: Path) -> None:
    contents = []
    for name, seed, text in (("one", 0, "x"), ("two", 1, "x"), ("three", 0, "y")):
        config = SftConfig(seed=seed)
        with artifact.create(tmp_path / name, stage="sft", config=config, inputs=[], code=Path(__file__)) as draft:
            (draft.path / "weights").write_text(text)
        contents.append(replay.content(artifact.read(tmp_path / name)))
    assert contents[0] == contents[1] != contents[2]


def test_what_differs_is_named_with_what_else_is_not_as_it_was() -> None:
    same = replay.compared(record(), {"plan": "z", "pretrain": "b", "sft": "c"}, {"cores": 2}, "1" * 40)
    assert same == "replay of 20261121-010203-abcd: all 2 artifacts have the recorded bytes"
    other = replay.compared(record(), {"pretrain": "b", "sft": "d"}, {"cores": 4}, "2" * 40)
    assert "sft of 2 artifacts differ" in other
    assert "the commit is 222222222222, was 111111111111; the machine is another one" in other


def test_a_stage_states_what_fixed_mode_takes() -> None:
    """Names of decisions are names of parameters: what a stage decides and nothing reads would be lost."""
    fields = {"pretrain": type(defaults().plan.fixed).model_fields} | {
        name: type(getattr(defaults(), name)).model_fields for name in ("sft", "preferences", "align")
    }
    for stage, values in DECIDED.items():
        assert set(values) <= set(fields[stage])
    assert StepConfig.model_config["extra"] == "forbid", "an unknown decision is refused, not dropped"
