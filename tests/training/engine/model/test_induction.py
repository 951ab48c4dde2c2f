"""An induction head that is written into a new decoder: it attends to what followed the last occurrence of a token."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.modeling_utils import PreTrainedModel

from components.training.engine.model import bigrams, induction
from components.training.engine.model.architectures import build
from components.training.engine.model.shape import Shape
from tests.margins import Margins
from tests.training.runs import SHAPE, TOKENS

pytestmark = pytest.mark.numeric

VOCABULARY, LENGTH = SHAPE.vocabulary_size, SHAPE.context // 2
SHAPES = [SHAPE, replace(SHAPE, architecture="llama"), replace(SHAPE, width=128, heads=4, key_value_heads=2)]
ids = [f"{shape.architecture}-{shape.width}" for shape in SHAPES]


def begun(shape: Shape) -> PreTrainedModel:
    """A new decoder with the head, on embeddings that are random otherwise."""
    model = build(shape, 0, 0)
    induction.reserve(model.get_input_embeddings().weight.data, induction.features_of(shape))
    induction.write(model, shape, torch.ones(VOCABULARY), seed=0)
    return model


def twice() -> Tensor:
    """Different tokens and the same once more, shape (B, T)."""
    rows = [np.random.default_rng(seed).permutation(VOCABULARY)[:LENGTH] for seed in range(8)]
    return torch.from_numpy(np.tile(np.stack(rows), 2))


def attended(model: PreTrainedModel, block: int, back: int) -> float:
    """Mean attention of the last head in the second half to the position so far back."""
    with torch.no_grad():
        weights = model(twice(), output_attentions=True).attentions[block][:, -1]
    rows = torch.arange(LENGTH, 2 * LENGTH - 1)
    return float(weights[:, rows, rows - back].mean())


@pytest.mark.parametrize("shape", SHAPES, ids=ids)
def test_it_attends_to_what_followed_the_last_occurrence(shape: Shape, margins: Margins) -> None:
    """The first block's head to the token before, the second's to the token behind the same one; before, hardly."""
    model, plain = begun(shape), build(shape, 0, 0)
    for block, back in ((0, 1), (1, LENGTH - 1)):
        more = attended(model, block, back) - attended(plain, block, back)
        margins.effect(f"attention in block {block}", more, least=0.4)


@pytest.mark.parametrize("shape", SHAPES, ids=ids)
def test_the_model_still_says_what_the_bigram_model_says(shape: Shape, margins: Margins) -> None:
    """The second block's head says nothing yet, and the reserved features hardly reach the output."""
    model, features = build(shape, 0, 0), induction.features_of(shape)
    embedding, output = model.get_input_embeddings().weight.data, model.get_output_embeddings().weight.data
    pairs = np.zeros((VOCABULARY, VOCABULARY), dtype=np.int64)
    np.add.at(pairs, (TOKENS[:-1], TOKENS[1:]), 1)
    induction.reserve(embedding, features)
    bigrams.fit(embedding, output, pairs, steps=40, dtype=torch.float32, kept=features + 1)
    windows = torch.from_numpy(TOKENS[:1024].reshape(-1, 32).astype(np.int64))
    with torch.no_grad():
        before = float(model(windows, labels=windows).loss)
        induction.write(model, shape, torch.from_numpy(pairs.sum(1)).float(), seed=0)
        after = float(model(windows, labels=windows).loss)
    margins.effect("below chance", np.log(VOCABULARY) - before, least=2.0)
    margins.error("change by the head", abs(after / before - 1), most=0.15)


def test_the_bigram_fit_leaves_the_reserved_features() -> None:
    features = induction.features_of(SHAPE)
    embedding, output = torch.randn(VOCABULARY, SHAPE.width), torch.zeros(VOCABULARY, SHAPE.width)
    induction.reserve(embedding, features)
    pairs = np.random.default_rng(0).integers(0, 9, (VOCABULARY, VOCABULARY))
    bigrams.fit(embedding, output, pairs, steps=20, dtype=torch.float32, kept=features + 1)
    assert not embedding[:, :features].any()
    assert not output[:, :features].any()
    constant = embedding[:, features]
    assert constant.min() > 0.5 * constant.max() > 0


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "bamba"},
        {"tied": True},
        {"layers": 1},
        {"context": 100_000},
        {"width": 32, "heads": 1, "key_value_heads": 1},
    ],
)
def test_what_it_does_not_cover_has_none(change: dict[str, object]) -> None:
    assert induction.features_of(SHAPE) == 16
    assert induction.features_of(replace(SHAPE, **change)) == 0
