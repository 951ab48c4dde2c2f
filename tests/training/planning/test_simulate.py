"""Simulated cycles: exact without chance, later with it, and the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.deadline.division import MARGIN_SHARE
from components.training.config import PlanConfig, PretrainConfig
from components.training.planning.simulate import LLAMA3_FAILURES_PER_GPU_HOUR, Chances, Run, simulate, summary


def run_of(chances: Chances, *, hours: float = 24.0, speed: float = 1e6, gpus: int = 8) -> Run:
    config = PlanConfig(hours=hours, batch_samples=512, sequence_length=2048, startup_seconds=120, finish_seconds=600)
    pretrain = PretrainConfig(checkpoint_seconds=600, decay_share=0.3)
    return Run(
        config=config,
        pretrain=pretrain,
        num_gpus=gpus,
        tokens_per_second=speed,
        compile_seconds=180.0,
        chances=chances,
    )


@settings(max_examples=20, deadline=None)
@given(st.floats(1.0, 48.0), st.floats(3e5, 1e7))
def test_without_chance_every_cycle_meets_its_deadline_exactly(hours: float, speed: float) -> None:
    run = run_of(Chances.none(), hours=hours, speed=speed)
    for each in simulate(run, 2):
        # The margin is left, and the last step is the last whole one.
        assert each.seconds == pytest.approx((1 - MARGIN_SHARE) * hours * 3600, abs=2 * run.step_seconds)
        assert (each.failures, each.lost_seconds, each.cause) == (0, 0.0, None)
    assert summary(run, simulate(run, 2))["met"] == 1.0


def test_the_same_seed_gives_the_same_cycles_and_another_seed_others() -> None:
    run = run_of(Chances())
    assert simulate(run, 20, seed=3) == simulate(run, 20, seed=3)
    assert simulate(run, 20, seed=3) != simulate(run, 20, seed=4)


def test_failures_come_at_their_rate_and_cost_a_restart_and_half_an_interval() -> None:
    rate = 100 * LLAMA3_FAILURES_PER_GPU_HOUR
    run = run_of(Chances(failures_per_gpu_hour=rate, stage_spread=0.0, speed_spread=0.0, slow_share=0.0))
    ended = simulate(run, 400)
    expected = rate * 8 * 23.4  # hours of training, about
    failures = np.array([each.failures for each in ended])
    assert failures.mean() == pytest.approx(expected, abs=4 * np.sqrt(expected / 400))
    lost = np.array([each.lost_seconds for each in ended if each.failures == 1])
    # A restart's mean is its median times exp(spread^2 / 2).
    assert lost.mean() == pytest.approx(300 + 300 * np.exp(0.125), rel=0.15)
    # What is lost near the end comes out of the margin and of the later stages by the clock; then it is named.
    for each in ended:
        if each.lost_seconds < MARGIN_SHARE * 24 * 3600:
            assert each.seconds <= 24 * 3600
        if each.seconds > 24 * 3600:
            assert each.cause in ("lost to failures", "too many failures")


def test_a_failed_run_ends_when_it_would_have_with_fewer_tokens() -> None:
    chances = Chances(failures_per_gpu_hour=0.003, restart_seconds=3600, restart_spread=0.0, stage_spread=0.0)
    ended = simulate(run_of(chances), 200)
    failed = [each for each in ended if each.failures == 1]
    assert len(failed) > 40 and min(each.lost_seconds for each in failed) > MARGIN_SHARE * 24 * 3600
    # An hour is lost of 23.4: only who fails in the last one or two cannot make up for it.
    assert np.mean([each.seconds <= 24 * 3600 for each in failed]) > 0.9
    whole = np.mean([each.tokens for each in ended if not each.failures])
    assert np.mean([each.tokens for each in failed]) < 0.97 * whole


def test_spread_that_nothing_can_absorb_misses_some_deadlines_and_says_why() -> None:
    wide = run_of(Chances(failures_per_gpu_hour=0.0, stage_spread=1.5), hours=1.0)
    found = summary(wide, simulate(wide, 200))
    assert 0 < float(str(found["met"])) < 1
    assert sum(found["missed"].values()) == round(200 * (1 - float(str(found["met"]))))  # type: ignore[attr-defined]
