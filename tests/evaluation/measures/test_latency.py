"""Times of real engines: rounds that pair up, figures that follow from each other, a slower model found slower."""

import re
from pathlib import Path

import numpy as np
import pytest

from components.evaluation.comparison.criteria import NAME, Guard
from components.evaluation.comparison.pairs import paired
from components.evaluation.config import EvaluateConfig, LatencyConfig
from components.evaluation.measures.latency import latency_items, latency_metrics, measured, record
from components.evaluation.measures.model_measures import ITEM_SCHEMA
from components.inference.ctranslate2_engine import CTranslate2Engine
from components.inference.engine import Completion, Sampling
from tests.serving.random_model import CONTEXT_TOKENS, write_random_model

pytestmark = pytest.mark.numeric

CONFIG = LatencyConfig(streams=(1, 4), rounds=3, prompt_tokens=500, new_tokens=5)
TEXTS = ["def add(a, b):\n    return a + b\n", "x"]


class Threefold(CTranslate2Engine):
    """An engine that does everything three times over, and keeps what it was asked."""

    asked: list[tuple[int, int, int]]

    def generate(self, prompts, sampling: Sampling, *, stop_ids) -> list[list[Completion]]:
        self.asked.append((len(prompts), len(prompts[0]), sampling.max_new_tokens))
        for _ in range(2):
            super().generate(prompts, sampling, stop_ids=stop_ids)
        return super().generate(prompts, sampling, stop_ids=stop_ids)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("models") / "model", 0)


def test_rounds_pair_up_and_figures_follow_from_them(model: Path) -> None:
    items = latency_items({"candidate": model, "champion": model}, TEXTS, CONFIG)
    assert items.schema == ITEM_SCHEMA
    sides = [items.filter(model=name) for name in ("candidate", "champion")]
    for streams in CONFIG.streams:
        for side in sides:
            rows = {name: side.filter(metric=f"streams_{streams}_{name}") for name in ("seconds", "tokens_per_second")}
            assert rows["seconds"]["item"].to_list() == ["round_1", "round_2", "round_3"]
            products = rows["seconds"]["value"] * rows["tokens_per_second"]["value"]
            assert products.to_list() == pytest.approx([streams * CONFIG.new_tokens] * CONFIG.rounds)
        for metric in ("first_token_seconds", "seconds", "tokens_per_second"):
            assert len(paired(*sides, "latency", f"streams_{streams}_{metric}")) == CONFIG.rounds


def test_every_metric_has_a_name_that_a_guard_takes(model: Path) -> None:
    config = EvaluateConfig(latency=CONFIG, resamples=100)
    items = latency_items({"candidate": model}, TEXTS, CONFIG)
    found = latency_metrics(items, config)
    assert len(found["candidate"]["latency"]) == 6
    for metric, figure in found["candidate"]["latency"].items():
        guard = Guard(metric=f"latency/{metric}", better="lower", scale="ratio", margin=0.1)
        assert re.fullmatch(NAME, guard.metric)
        assert 0 < figure["low"] <= figure["value"] <= figure["high"] and figure["n"] == CONFIG.rounds
        assert figure["value"] == pytest.approx(items.filter(metric=metric)["value"].mean())
    assert set(record(found)) == {"load", "candidate"}


def test_a_model_that_does_three_times_the_work_is_slower(model: Path, tmp_path: Path) -> None:
    """Medians of 15 rounds in turns; and what is asked of an engine is what the config says."""
    plain, threefold = (kind(model, num_threads=1, cache=tmp_path) for kind in (CTranslate2Engine, Threefold))
    threefold.asked = []
    prompts = np.random.default_rng(0).integers(0, plain.vocabulary_size, (4, CONTEXT_TOKENS // 2)).tolist()
    seconds = np.array(
        [[measured(engine, prompts, 4, number, 40)["seconds"] for engine in (plain, threefold)] for number in range(15)]
    )
    assert np.median(seconds[:, 1] / seconds[:, 0]) > 1.8
    assert set(threefold.asked) == {(4, CONTEXT_TOKENS // 2, 1), (4, CONTEXT_TOKENS // 2, 40)}


@pytest.mark.parametrize("streams", [(), (0,), (4, 4)])
def test_streams_that_mean_nothing_are_refused(streams: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="streams"):
        LatencyConfig(streams=streams)
