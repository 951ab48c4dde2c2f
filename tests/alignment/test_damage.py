"""What a stage may cost: the next token, and the middles of infilled windows."""

from pathlib import Path

import numpy as np
import pytest
import torch

from components.alignment.config import GuardConfig
from components.alignment.damage import Abilities, Guard, growth
from components.alignment.objectives import tuning
from components.core.errors import DataError
from components.tokens.encoding.codec import TextCodec
from components.training.engine.batches.batch import IGNORED
from tests.margins import Margins

pytestmark = pytest.mark.numeric


@pytest.fixture
def guard(world: Path) -> Guard:
    return Guard(GuardConfig(windows=6), world / "tokens", world / "base", length=128, seed=0)


def test_only_middles_are_measured_as_infilling(world: Path, guard: Guard) -> None:
    """Against a walk over each piece by hand."""
    middle = TextCodec(world / "base").special.fim_middle
    batch = guard._windows[1].batch(range(6))
    measured = guard._middles(batch)
    for row in range(6):
        behind = False
        for place in range(128):
            behind = (behind and batch.positions[row, place] > 0) or batch.inputs[row, place] == middle
            assert measured[row, place] == (batch.labels[row, place] if behind else IGNORED)
    share = np.mean(measured != IGNORED)
    assert 0.05 < share < 0.9


def test_a_model_is_its_own_equal_and_a_spoiled_one_is_not(world: Path, guard: Guard, margins: Margins) -> None:
    model = tuning.load_model(world / "base")
    before = guard.measure(model)
    assert guard.measure(model) == before and guard.objection(before, before) is None
    assert guard.record(before, before)["text_loss"] == 0
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(30)
    after = guard.measure(model)
    margins.effect("growth of the spoiled model", float(growth(before.text, after.text) or 0), least=0.5)
    assert "text is worse by" in str(guard.objection(before, after))


def test_each_limit_counts_and_what_is_no_number_is_refused(guard: Guard) -> None:
    before = Abilities(text=2.0, infilling=2.0)
    assert guard.objection(before, Abilities(text=2.05, infilling=2.07)) is None
    assert "text" in str(guard.objection(before, Abilities(text=2.07, infilling=2.0)))
    assert "infilling is worse by 5.0%, at most 4.0%" in str(
        guard.objection(before, Abilities(text=1.9, infilling=2.1))
    )
    assert guard.objection(before, Abilities(text=float("nan"), infilling=2.0)) is not None
    assert guard.objection(before, Abilities(text=2.0, infilling=None)) is None


def test_held_out_documents_that_fill_no_window_are_one_line(world: Path) -> None:
    with pytest.raises(DataError, match="fill no window of 100000 tokens"):
        Guard(GuardConfig(), world / "tokens", world / "base", length=100_000, seed=0)
