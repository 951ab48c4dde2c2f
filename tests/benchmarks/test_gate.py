"""What the gate promises, drawn again and again, and the same on evaluations of trainings of one recipe."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks import gate
from components.core import artifact
from components.core.config import StepConfig
from components.core.errors import DataError, OvernightError
from components.evaluation.comparison.criteria import Criteria, Primary
from components.evaluation.evaluate import ITEMS
from components.evaluation.measures.model_measures import ITEM_SCHEMA

FALSE = {each.name: each for each in gate.false_promotions()}
POWER = {each.name: each for each in gate.power()}
TRIALS = 300
LIMIT = 0.05 + 2 * (0.05 * 0.95 / TRIALS) ** 0.5


class NoConfig(StepConfig):
    """No parameters."""


@pytest.mark.parametrize("name", [each for each in FALSE if not each.startswith("all of it")])  # the slowest
def test_no_better_model_is_promoted_more_often_than_stated(name: str) -> None:
    """5 % and two standard errors of a rate of 5 %; without its protection a scenario exceeds that."""
    scenario = FALSE[name]
    assert gate.rate(scenario.trial, TRIALS, seed=1) <= LIMIT
    if scenario.without:
        assert gate.rate(scenario.without, TRIALS, seed=1) > LIMIT


@pytest.mark.parametrize("scenario", gate.false_refusals(), ids=lambda each: each.name)
def test_no_worse_model_is_refused_more_often_than_stated(scenario: gate.Scenario) -> None:
    assert gate.rate(scenario.trial, TRIALS, seed=1) <= LIMIT


def test_better_models_are_promoted() -> None:
    assert gate.rate(POWER["better by 0.05, three runs each"].trial, 100, seed=1) > 0.8
    assert gate.rate(POWER["better by 0.08 bits per byte, one run each"].trial, 100, seed=1) > 0.8


def training(deviation: float, seed: int, documents: int = 40) -> pl.DataFrame:
    """Items of one training: every document moves with the seed, and a little on its own."""
    generator = np.random.default_rng([9, seed])
    hard = np.random.default_rng(0).normal(1.8, 0.4, documents)
    values = hard + generator.normal(0, deviation) + generator.normal(0, deviation / 4, documents)
    rows = [("base", "likelihood", f"{n}", "bits_per_byte", float(each), 1.0 + n) for n, each in enumerate(values)]
    return pl.DataFrame(rows, schema=ITEM_SCHEMA, orient="row")


def test_trainings_of_one_recipe_are_not_promoted_over_each_other() -> None:
    """Eight seeds: with the items' error alone a half of all pairs passes, each better one over each worse."""
    items = [training(0.02, seed) for seed in range(8)]
    primary = Primary(metric=gate.BITS, better="lower", replicate_deviation=0.02, replicate_runs=8)
    found = gate.replicate_rates(items, Criteria(primaries=(primary,), guards=(), resamples=1000))
    assert (found["trainings"], found["pairs"]) == (8, 56)
    assert found["deviations"][gate.BITS]["runs"] == 8
    assert 0.01 < found["deviations"][gate.BITS]["deviation"] < 0.04
    rates = found["false_promotions"]
    assert rates["items_alone"] > 0.3
    assert rates["configured"] <= 0.06 and rates["other_trainings"] <= 0.06


def test_evaluations_are_read_from_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gate, "REPORTS", tmp_path / "reports")
    names = []
    for seed in range(4):
        out = tmp_path / f"seed-{seed}"
        with artifact.create(out, stage="evaluate", config=NoConfig(), inputs=[], code=Path(__file__)) as draft:
            training(0.02, seed).write_parquet(draft.path / ITEMS)
        names.append(f"{out}:base" if seed == 3 else str(out))
    assert gate.main(["replicates", *names]) == 0
    written = json.loads((tmp_path / "reports" / "gate_replicates.json").read_text())
    assert (written["trainings"], written["pairs"]) == (4, 12)
    for wrong, said in (
        ([*names[:2]], "2 evaluations: needed 3 at least"),
        ([*names[:3], str(tmp_path)], "no evaluation, items.parquet is not in it"),
        ([*names[:3], f"{names[0]}:sft"], "holds base, found sft; name one"),
    ):
        assert gate.main(["replicates", *wrong]) in (1, 2)
        assert said in capsys.readouterr().err


def test_trainings_that_were_asked_other_things_are_named() -> None:
    items = [training(0.02, seed) for seed in range(3)]
    with pytest.raises(DataError, match="was not asked 1 of the"):
        gate.replicate_rates([*items, training(0.02, 3, documents=39)], Criteria(resamples=1000))
    with pytest.raises(OvernightError, match="suite/other is no primary metric that all evaluations have"):
        gate.replicate_rates(items, Criteria(resamples=1000), "suite/other")
