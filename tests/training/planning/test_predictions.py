"""A prediction is held against what came of it, once, and kept."""

from pathlib import Path

from components.core import artifact
from components.core.artifact import Manifest
from components.core.config import StepConfig
from components.training import plan as plan_stage
from components.training.config import Plan, PlanConfig, Prediction
from components.training.plan import plan_fixed
from components.training.planning import predictions


def base_of(path: Path, found: float) -> Manifest:
    code = Path(plan_stage.__file__)
    with artifact.create(path, stage="pretrain", config=StepConfig(), inputs=[], code=code) as draft:
        draft.statistics = {"parameters": 1_000, "tokens": 5_000, "validation_bits_per_byte": found}
    assert draft.manifest is not None
    return draft.manifest


def test_predicted_interval_and_found_are_kept_once(tmp_path: Path) -> None:
    fixed = plan_fixed(PlanConfig(mode="fixed"), 4096)
    expected = Prediction(low=1.4, value=1.5, high=1.6, unit="bits per byte")
    planned: Plan = fixed.model_copy(update={"predicted": expected, "expected_tokens": 4_900})
    assert predictions.outcome(fixed, base_of(tmp_path / "none", 1.5)) is None
    for number, (found, inside) in enumerate(((1.55, True), (1.7, False))):
        row = predictions.outcome(planned, base_of(tmp_path / str(number), found))
        assert row is not None and (row["found"], row["inside"], row["planned_tokens"]) == (found, inside, 4_900)
        assert predictions.keep(tmp_path / "laws", row)
        assert not predictions.keep(tmp_path / "laws", row)
    with (tmp_path / "laws" / predictions.FILE).open("a") as file:
        file.write('{"model": "cut o')
    assert [each["found"] for each in predictions.read(tmp_path / "laws")] == [1.55, 1.7]
