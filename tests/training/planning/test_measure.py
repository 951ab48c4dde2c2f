"""The timed steps run as the worker's will."""

import itertools
import os
import subprocess
import sys

import pytest

from components.training.config import PlanConfig
from components.training.engine.devices import cores, timed_steps
from components.training.parameters.size import Size
from components.training.plan import shape_for
from components.training.planning import throughput

PROBE = """
import os, sys
from components.training.config import PlanConfig
from components.training.parameters.size import Size
from components.training.plan import shape_for
from components.training.planning import throughput as measure
assert "torch" not in sys.modules
config = PlanConfig(probe_seconds=0.1, sequence_length=16)
places = []
probe = measure._loaded(config)
timed = probe._timed_steps

def watched(*arguments):
    from components.training.engine.devices.cores import team_of
    places.extend(os.sched_getaffinity(each) for each in team_of(2))
    return timed(*arguments)

probe._timed_steps = watched
assert measure.tokens_per_second(config, shape_for(config, Size(layers=1, width=64), 64), "float32", False) > 0
assert "GOMP_SPINCOUNT" not in os.environ and os.environ["OMP_WAIT_POLICY"] == "PASSIVE", "children wait as before"
print([sorted(each) for each in places])
print(sorted(os.sched_getaffinity(0)))
"""


@pytest.mark.skipif(len(cores.ALL_CORES) < 2, reason="one core")
def test_the_probe_waits_and_is_placed_as_the_worker() -> None:
    """OpenMP itself says how it waits."""
    variables = {name: each for name, each in os.environ.items() if name != "GOMP_SPINCOUNT"}
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        env=variables | {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE", "OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "GOMP_SPINCOUNT = '100000'" in done.stderr
    places, after = done.stdout.splitlines()
    here = sorted(cores.ALL_CORES)
    assert places == str([here[:1], here[1:2]])
    assert after == str(here), "the cores come back"


def test_a_precision_that_is_imitated_is_never_stepped_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step in it would take an hour; one product tells."""
    speeds = {"float32": 100e9, "bfloat16": 2e9}
    monkeypatch.setattr(timed_steps, "product_flops", lambda precision, device: speeds[precision])
    monkeypatch.setattr(timed_steps, "step_seconds", lambda *_, **__: pytest.fail("no step is needed"))
    config = PlanConfig(probe_seconds=0.1, sequence_length=16)
    shape = shape_for(config, Size(layers=1, width=64), 64)
    precision, figures = throughput.fastest_precision(config, shape, compiled=False)
    assert precision == "float32"
    assert figures == {"float32_product_flops": 100e9, "bfloat16_product_flops": 2e9}
    speeds["bfloat16"] = 150e9
    monkeypatch.setattr(
        timed_steps, "step_seconds", lambda _, precision, **__: {"float32": 2.0, "bfloat16": 1.0}[precision]
    )
    assert throughput.fastest_precision(config, shape, compiled=False)[0] == "bfloat16"


class Steps:
    """What the probe times, counted."""

    def __init__(self) -> None:
        self.taken = 0

    def accumulate(self, step: int, batch: object) -> None:
        assert step == self.taken
        self.taken += 1

    def update(self, step: int, multiplier: float) -> None: ...


@pytest.mark.parametrize(("limit", "steps"), [(0.5, 1), (1.5, timed_steps.MINIMUM_STEPS), (20.0, 7)])
def test_a_step_that_takes_all_the_time_there_is_is_the_only_one(
    limit: float, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at the clock finds it a second later: a step takes one, and the limit is looked at after another."""
    monkeypatch.setattr(timed_steps.time, "monotonic", itertools.count(0.0, 1.0).__next__)
    trainer = Steps()
    seconds = list(timed_steps._timed_steps(trainer, None, limit))  # type: ignore[arg-type]
    assert (len(seconds), trainer.taken, set(seconds)) == (steps, steps, {1.0})
