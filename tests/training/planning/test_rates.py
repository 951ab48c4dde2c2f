"""Rates move from the width they were found at to another."""

import pytest

from components.training.config import PretrainConfig


def test_the_output_rate_falls_with_the_width_and_no_other_does() -> None:
    config = PretrainConfig()
    assert config.rates_at(config.update.rates_width) == config.rates
    wide = config.rates_at(4 * config.update.rates_width)
    assert wide.output == pytest.approx(config.rates.output / 2)
    assert wide.model_copy(update={"output": config.rates.output}) == config.rates


def test_continued_training_keeps_its_rates() -> None:
    config = PretrainConfig(init_from="models/other")
    assert config.rates_at(4096) == config.init_rates
