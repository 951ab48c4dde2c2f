"""A bigram model's start: it reaches the entropy of the corpus's pairs, and a new decoder says just what it says."""

from pathlib import Path

import numpy as np
import pytest
import torch

from components.tokens.shards.token_store import TokenStore, TokenWriter
from components.training.engine.batches.batch import next_token_batch
from components.training.engine.model import bigrams
from components.training.engine.model.architectures import build
from components.training.engine.model.forward import Tensors, features, output_weight
from components.training.engine.model.loss import token_nats
from tests.margins import Margins
from tests.training.runs import SHAPE, TOKENS

pytestmark = pytest.mark.numeric

VOCABULARY = SHAPE.vocabulary_size


@pytest.fixture
def pairs(tmp_path: Path) -> np.ndarray:
    with TokenWriter(tmp_path, "train", vocabulary_size=VOCABULARY, shard_tokens=1000) as writer:
        writer.append(TOKENS, np.array([len(TOKENS)]))
    return TokenStore(tmp_path, "train").pairs(VOCABULARY)


def test_pairs_are_counted(pairs: np.ndarray) -> None:
    assert pairs.sum() == len(TOKENS) - 1
    row, column = 5, 6
    assert pairs[row, column] == sum((TOKENS[:-1] == row) & (TOKENS[1:] == column)) > 0


def test_a_new_model_begins_as_the_bigram_model(pairs: np.ndarray, margins: Margins) -> None:
    """A token is followed by one of three, and by any other as often as PRIOR says: the entropy of that is reached, and
    the decoder itself is that model on windows of text."""
    model = build(SHAPE, 0, 0)
    embedding, output = model.get_input_embeddings().weight.data, model.get_output_embeddings().weight.data
    before = bigrams.fit(embedding.clone(), output.clone(), pairs, steps=1, dtype=torch.float32)
    margins.error("begins at chance", abs(before - np.log(VOCABULARY)), most=0.05)
    fitted = bigrams.fit(embedding, output, pairs, steps=60, dtype=torch.float32)
    follows = (pairs.sum(0) + 1) / (pairs.sum() + VOCABULARY)
    smoothed = (pairs + bigrams.PRIOR * follows) / (pairs.sum(1, keepdims=True) + bigrams.PRIOR)
    entropy = -(pairs.sum(1) / pairs.sum()) @ (smoothed * np.log(smoothed)).sum(1)
    assert entropy < fitted
    margins.error("above the entropy", fitted - entropy, most=0.3)
    batch = next_token_batch(np.stack([TOKENS[start : start + 33] for start in range(0, 1024, 32)]))
    part = Tensors(inputs=torch.from_numpy(batch.inputs), labels=torch.from_numpy(batch.labels))
    with torch.no_grad():
        said = token_nats(features(model, part).hidden, output_weight(model), part.labels).mean()
    assert np.log(3) < float(said) < fitted


def test_gradients_are_those_of_autograd(pairs: np.ndarray, margins: Margins) -> None:
    torch.manual_seed(0)
    inputs, outputs = torch.randn(VOCABULARY, 16), torch.randn(VOCABULARY, 16)
    weight = torch.from_numpy(pairs.sum(1) / pairs.sum()).float()
    wanted = torch.from_numpy(pairs / pairs.sum(1, keepdims=True)).float()
    nats = bigrams._gradients(inputs, outputs, wanted, weight, torch.float32)
    left, right = inputs.clone().requires_grad_(), outputs.clone().requires_grad_()
    logits = torch.nn.functional.rms_norm(left, (16,), eps=0.0) @ right.mT
    plain = -(weight[:, None] * wanted * torch.log_softmax(logits, 1)).sum()
    torch.autograd.backward(plain)
    assert float(nats) == pytest.approx(plain.item(), rel=1e-5)
    for found, tensor in ((inputs.grad, left), (outputs.grad, right)):
        assert found is not None and tensor.grad is not None
        margins.close("gradient", found, tensor.grad, rtol=1e-3, atol=1e-6)


def test_unseen_tokens_keep_a_chance(pairs: np.ndarray) -> None:
    """Rows beyond the table stay as they were; a token of the table that never occurs is rare, not impossible."""
    wider = np.zeros((VOCABULARY + 1, VOCABULARY + 1), dtype=np.int64)
    wider[:-1, :-1] = pairs
    torch.manual_seed(0)
    embedding, output = torch.randn(VOCABULARY + 8, 64), torch.randn(VOCABULARY + 8, 64) * 1e-3
    kept = embedding[VOCABULARY + 1 :].clone()
    bigrams.fit(embedding, output, wider, steps=60, dtype=torch.float32)
    assert torch.equal(embedding[VOCABULARY + 1 :], kept)
    said = torch.log_softmax(embedding[5] @ output[: VOCABULARY + 1].mT, 0)
    assert -14 < float(said[VOCABULARY]) < -3
