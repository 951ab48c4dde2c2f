"""The formula against the peak of real steps, each size in a process of its own."""

import json
import subprocess
import sys

import pytest

from components.training.config import PlanConfig
from components.training.parameters.size import Size
from components.training.plan import shape_for
from components.training.planning.memory_estimate import worker_bytes

# Steps of the very engine; the peak is the kernel's (VmHWM of /proc/self/status).
PEAK = """
import sys, json
from pathlib import Path
from components.training.config import PlanConfig
from components.training.parameters.size import Size
from components.training.plan import shape_for
from components.training.planning.throughput import tokens_per_second
config = PlanConfig.model_validate_json(sys.argv[1])
tokens_per_second(config, shape_for(config, config.ladder[0], 4096), "float32", False)
line = next(each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM"))
print(json.dumps(int(line.split()[1]) * 1024))
"""


@pytest.mark.drill
@pytest.mark.parametrize(("layers", "width", "samples"), [(4, 128, 8), (8, 512, 2)])
def test_the_formula_is_within_15_percent_of_the_measured_peak(layers: int, width: int, samples: int) -> None:
    config = PlanConfig(ladder=(Size(layers=layers, width=width),), micro_batch_samples=samples, probe_seconds=1.0)
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PEAK, config.model_dump_json()],
        capture_output=True,
        text=True,
        check=True,
    )
    measured = json.loads(ran.stdout.splitlines()[-1])
    expected = worker_bytes(shape_for(config, config.ladder[0], 4096), config, "float32", samples)
    assert expected == pytest.approx(measured, rel=0.15), f"{expected / 1e6:.0f} MB, measured {measured / 1e6:.0f} MB"
