"""Sampling that an engine would refuse hours later is refused when params.yaml is read, in one line."""

from typing import Any

import pytest

from components.core.config import validate
from components.core.errors import ConfigError
from flows.running.params import tree


@pytest.mark.parametrize(
    ("stage", "values", "message"),
    [
        ("evaluate", {"functional": {"temperatures": [1e-46]}}, "temperatures.0 is 1e-46; input should be greater"),
        ("evaluate", {"functional": {"temperatures": [0.5, 1e39]}}, "temperatures.1 is 1e+39; input should be less"),
        ("evaluate", {"functional": {"temperatures": [0.5, 0.5]}}, "needed different ones"),
        ("evaluate", {"functional": {"top_p": 1e-50}}, "top_p is 1e-50; input should be greater"),
        ("evaluate", {"functional": {"num_samples": 10**30}}, "input should be less than or equal to 10000"),
        ("evaluate", {"latency": {"new_tokens": 2**31}}, "input should be less than or equal to 1048576"),
        ("evaluate", {"seed": 2**32}, "evaluate.seed is 4294967296; input should be less than"),
        ("preferences", {"temperatures": [0, 1e-39]}, "temperatures are 0 or from 1e-05 to 2"),
        ("preferences", {"temperatures": [1e39]}, "temperatures are 0 or from 1e-05 to 2"),
        ("preferences", {"temperatures": [float("nan")]}, "temperatures are 0 or from 1e-05 to 2"),
        ("preferences", {"temperatures": [0, 0.0]}, "temperatures are different numbers"),
        ("preferences", {"top_p": 1e-50}, "top_p is 1e-50; input should be greater"),
        ("preferences", {"num_samples": 10**30}, "input should be less than or equal to 10000"),
        ("preferences", {"max_new_tokens": 2**63}, "input should be less than or equal to 1048576"),
        ("preferences", {"seed": 2**64}, "preferences.seed is 18446744073709551616; input should be less than"),
    ],
)
def test_sampling_that_no_engine_takes_is_refused_at_once(stage: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate({stage: values}, tree(), "params.yaml")
    said = str(caught.value)
    assert said.startswith(f"params.yaml: {stage}.") and message in said and "\n" not in said


def test_bounds_themselves_are_taken() -> None:
    validate({"preferences": {"temperatures": [0, 1e-5, 2], "top_p": 1e-7, "seed": 2**31 - 1}}, tree(), "params.yaml")
    validate({"evaluate": {"functional": {"temperatures": [1e-5, 2], "top_p": 1}}}, tree(), "params.yaml")
