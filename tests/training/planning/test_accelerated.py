"""What a plan says of accelerators. No GPU: what is compared on one is test_accelerators.py's."""

import subprocess
import sys
from typing import Any, Literal

import pytest
from pydantic import ValidationError

from components.core.errors import ConfigError
from components.training.config import PlanConfig
from components.training.parameters.accelerators import AcceleratorsConfig
from components.training.parameters.size import Size
from components.training.plan import shape_for
from components.training.planning.accelerator_choice import Accelerated, Planned, accelerated

SIZE = Size(layers=2, width=64)


def plan(
    use: Any, *, device: Literal["cpu", "cuda"] = "cpu", seconds: float = 9e4, here: bool = True
) -> tuple[PlanConfig, Planned]:
    config = PlanConfig(accelerators=AcceleratorsConfig(use=use), device=device)
    run = Planned(
        shape=shape_for(config, SIZE, 512),
        precision="bfloat16",
        compiled=True,
        micro_batch_samples=8,
        training_seconds=seconds,
        here=here,
    )
    return config, run


AUTO = """
import sys
from tests.training.planning.test_accelerated import plan
from components.training.planning.accelerator_choice import Accelerated, accelerated
assert accelerated(*plan("auto")) == Accelerated()
assert accelerated(*plan(())) == Accelerated()
sys.exit("torch" in sys.modules)
"""


def test_on_a_cpu_nothing_is_timed_and_torch_not_even_imported() -> None:
    assert subprocess.run([sys.executable, "-c", AUTO], check=False, timeout=120).returncode == 0


def test_what_is_named_is_taken_or_refused_in_one_line() -> None:
    assert accelerated(*plan(("float8",))).names == ("float8",)
    with pytest.raises(
        ConfigError, match=r"^plan\.accelerators\.use: graphs: found device cpu, needed cuda; .* take graphs out"
    ):
        accelerated(*plan(("graphs", "float8")))
    assert accelerated(*plan(("graphs",), here=False)).names == ("graphs",), "of a machine that is not here"


def test_names_are_read_as_they_are_written_and_unknown_ones_refused_in_one_line() -> None:
    for given, use in (
        ("auto", "auto"),
        ("float8", ("float8",)),
        (["graphs", "float8"], ("graphs", "float8")),
        ([], ()),
    ):
        assert AcceleratorsConfig.model_validate({"use": given}).use == use
    with pytest.raises(
        ValidationError, match=r"found \['fp8'\], needed auto or a list of liger, graphs, float8"
    ) as found:
        AcceleratorsConfig.model_validate({"use": ["fp8"]})
    assert found.value.error_count() == 1


def test_too_little_time_to_look_is_said() -> None:
    found = accelerated(*plan("auto", device="cuda", seconds=600.0))
    assert found == Accelerated(notes=("no accelerators: 600 s left for training, looked for from 3600 on",))
