"""The ladder for real: Ray Tune, the engine, branches off one stable run, and nothing made twice."""

import json
from pathlib import Path

import pytest
import torch

from components.machine import cluster
from components.training.config import FixedRun, PlanConfig, PretrainConfig
from components.training.engine.schedule import decay_start
from components.training.parameters.fit import FitConfig
from components.training.parameters.size import Size
from components.training.plan import plan_fixed
from components.training.planning import ladder
from components.training.planning.branches import train_lengths
from components.training.planning.fitted import Domain
from components.training.planning.ladder import design, shares_of, steps_of
from components.training.run.worker_input import Work
from tests.training.test_pretrain import VOCABULARY_SIZE, make_inputs

SIZES = (Size(layers=1, width=64), Size(layers=2, width=64), Size(layers=2, width=128))
PLAN = PlanConfig(sequence_length=32, fit=FitConfig(sizes=SIZES, validation_bytes=4000, draws=50), probe_seconds=1.0)
PRETRAIN = PretrainConfig(warmup_steps=2)


def work_of(folder: Path, steps: int) -> Work:
    fixed = FixedRun(size=SIZES[0], steps=steps)
    return Work(
        config=PRETRAIN,
        plan=plan_fixed(PLAN.model_copy(update={"fixed": fixed}), VOCABULARY_SIZE),
        tokens=folder / "tokens",
        tokenizer=folder / "tokenizer",
        run=folder,
        training_ends_at=None,
        threads=1,
    )


def test_lengths_share_the_time_of_one_size() -> None:
    for steps_in_time in (200.0, 5000.0):
        found = steps_of((0.25, 0.5, 1.0), 0.6, steps_in_time)
        assert found[2] == pytest.approx(2 * found[1], abs=2) and found[1] == pytest.approx(2 * found[0], abs=2)
        stable = decay_start(found[-1], 0.6)
        assert stable + sum(each - decay_start(each, 0.6) for each in found) == pytest.approx(steps_in_time, rel=0.03)
    assert steps_of((0.25, 0.5, 1.0), 0.6, 1.0)[0] >= ladder.LEAST_STEPS
    speeds = {size: 1000.0 * number for number, size in enumerate(SIZES, 1)}
    assert [size for size, _ in design(PLAN, PRETRAIN, speeds, 3.0)] == list(SIZES)


def test_validation_takes_its_share_of_the_time() -> None:
    """A law's runs are short: what validates them would else take half as long again as the runs."""
    speed, decay = 4000.0, PRETRAIN.decay_share
    validated = PLAN.fit.model_copy(update={"validation_bytes": 600_000})
    ((_, lengths),) = design(PLAN.model_copy(update={"fit": validated}), PRETRAIN, {SIZES[0]: speed}, 5.0)
    steps = decay_start(lengths[-1], decay) + sum(each - decay_start(each, decay) for each in lengths)
    training = steps * PLAN.batch_samples * PLAN.sequence_length / speed
    forward = len(lengths) * 600_000 / 3 * 2 / 3 / speed
    assert training + forward + ladder.START_SECONDS == pytest.approx(300.0, rel=0.03)


def test_one_trial_at_a_time_on_a_small_machine_and_shares_of_a_large_one() -> None:
    assert shares_of({"CPU": 2.0}, 3, "cpu") == (2, 0.0)
    assert shares_of({"CPU": 64.0}, 3, "cpu") == (21, 0.0)
    assert shares_of({"CPU": 16.0, "GPU": 1.0}, 4, "cuda") == (4, 0.25)
    assert shares_of({"CPU": 64.0, "GPU": 8.0}, 4, "cuda") == (16, 1.0)


def test_a_branch_is_the_run_of_its_length_alone(tmp_path: Path) -> None:
    make_inputs(tmp_path)
    torch.use_deterministic_algorithms(True)

    def losses(*lengths: int) -> dict[int, float]:
        found: dict[int, float] = {}
        work = work_of(tmp_path, lengths[-1])
        wanted = dict.fromkeys(lengths, True)
        train_lengths(work, wanted, "cpu", until=float("inf"), keep=found.__setitem__, note=print)
        return found

    together = losses(10, 20)
    assert together == losses(10) | losses(20)
    assert together[10] != together[20]


def test_other_rates_are_other_runs_and_other_reports_are_not() -> None:
    domain = Domain(tokenizer_digest="t", vocabulary_size=10, architecture="qwen3", shape_digest="s")

    def key(pretrain: PretrainConfig, minutes: float = 1.0) -> str:
        return ladder._key("corpus", domain, PLAN, pretrain, minutes)

    assert key(PRETRAIN) == key(PRETRAIN.model_copy(update={"report_every_steps": 7}))
    changed = PRETRAIN.rates.model_copy(update={"matrix": 0.01})
    others = {key(PRETRAIN.model_copy(update={"rates": changed})), key(PRETRAIN, 2.0), key(PRETRAIN)}
    assert len(others) == 3


@pytest.mark.drill
def test_a_law_is_fitted_by_ray_tune_and_finished_runs_are_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_inputs(tmp_path)
    state = tmp_path / "state"
    monkeypatch.setenv("OVERNIGHT_STATE", str(state))
    monkeypatch.setenv("OVERNIGHT_RAY_NUM_CPUS", "1")
    told: list[str] = []

    def fitted() -> float:
        law = ladder.fit_corpus(
            PLAN,
            PRETRAIN,
            tokens=tmp_path / "tokens",
            tokenizer=tmp_path / "tokenizer",
            state=state,
            minutes=0.01,
            tell=told.append,
        )
        assert len(law.points) == 9 and law.held_back is not None
        return law.predict(100_000, 100_000).value

    with cluster.connect():
        first = fitted()
        folder = next((state / "laws").iterdir())
        files = {each: each.stat().st_mtime_ns for each in folder.glob("*x*.json")}
        lost = max(files, key=lambda each: json.loads(each.read_text())["tokens"])
        lost.unlink()
        assert fitted() == pytest.approx(first, rel=1e-4)
        again = {each: each.stat().st_mtime_ns for each in folder.glob("*x*.json")}
        assert {each for each in files if again[each] != files[each]} == {lost}
        assert any(each.startswith("8 of 9 runs are there") for each in told)
