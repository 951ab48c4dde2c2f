"""Pieces of documents in one row do not see each other: a document says packed what it says alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers.masking_utils import create_causal_mask
from transformers.modeling_utils import PreTrainedModel

from components.training.engine.model.architectures import build
from components.training.engine.model.forward import Tensors, features
from components.training.engine.model.masks import additive, allowed, bounds_of, piece_numbers
from components.training.engine.model.shape import Architecture, kind_of, shape_of
from tests.margins import Margins
from tests.training.runs import SHAPE

pytestmark = pytest.mark.numeric

LENGTHS = (7, 1, 17, 3)  # of the pieces of a row
TOLERANCE = 3e-4  # T5, whose attention is not scaled, differs by 1.2e-4 on two threads; a leak by 0.3 and more
CONFIG = build(SHAPE, 0, 0).config


def positions_of(*rows: tuple[int, ...]) -> Tensor:
    """Positions of rows whose pieces have these lengths, (B, T)."""
    return torch.tensor([[place for length in row for place in range(length)] for row in rows])


def model_of(architecture: Architecture, implementation: str = "eager") -> PreTrainedModel:
    """A small model; a new one's blocks say nothing, so every weight is moved."""
    shape = shape_of(
        architecture=architecture,
        vocabulary_size=128,
        context=64,
        layers=4,
        width=64,
        head_width=32,
        queries_per_key_value=2,
        rope_theta=10_000.0,
        tied=False,
    )
    model = build(shape, 0, 0).eval()
    model.set_attn_implementation(implementation)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def rows(architecture: str, lengths: tuple[int, ...]) -> Tensors:
    """Two rows of random tokens with the same pieces, in reversed order in the second."""
    order = (lengths, lengths[::-1])
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 128, size=(2, sum(lengths))))
    batch = Tensors(inputs=tokens, labels=tokens, positions=positions_of(*order))
    if kind_of(architecture) != "encoder-decoder":
        return batch
    longer = tuple(tuple(length + 2 for length in each) for each in order)
    read = torch.from_numpy(np.random.default_rng(1).integers(0, 128, size=(2, sum(longer[0]))))
    return replace(batch, encoder_inputs=read, encoder_positions=positions_of(*longer))


def piece(batch: Tensors, row: int, number: int) -> tuple[Tensors, Tensor]:
    """One piece alone, and where it lies in its row."""
    assert batch.positions is not None
    here = piece_numbers(batch.positions)[row] == number
    alone = Tensors(inputs=batch.inputs[row, here][None], labels=batch.labels[row, here][None])
    if batch.encoder_inputs is None or batch.encoder_positions is None:
        return alone, here
    there = piece_numbers(batch.encoder_positions)[row] == number
    return replace(alone, encoder_inputs=batch.encoder_inputs[row, there][None]), here


@torch.no_grad()
def worst(model: PreTrainedModel, batch: Tensors, given: Tensors) -> float:
    """The largest difference between the features of `given` as a whole and of each piece of `batch` alone."""
    packed = features(model, given).hidden
    differences = []
    for row in range(2):
        for number in range(1, len(LENGTHS) + 1):
            alone, here = piece(batch, row, number)
            differences.append(float((packed[row, here] - features(model, alone).hidden[0]).abs().max()))
    return max(differences)


@pytest.mark.parametrize(
    ("architecture", "implementation"),
    [
        ("llama", "eager"),
        ("llama", "sdpa"),
        ("qwen3", "eager"),
        ("qwen3", "sdpa"),
        ("mixtral", "sdpa"),
        ("modernbert", "sdpa"),
        ("t5", "eager"),
    ],
)
def test_a_piece_says_in_a_row_what_it_says_alone_and_a_leak_is_seen(
    architecture: Architecture, implementation: str, margins: Margins
) -> None:
    model, batch = model_of(architecture, implementation), rows(architecture, LENGTHS)
    margins.error("a piece alone", worst(model, batch, batch), most=TOLERANCE)
    margins.effect("pieces that matter", worst(model, batch, replace(batch, positions=None)), least=100 * TOLERANCE)
    leaking = batch.positions.clone() if batch.positions is not None else torch.empty(0)
    leaking[0, LENGTHS[0]] = LENGTHS[0]  # the second piece, one token, is read as the end of the first
    margins.effect("a leak", worst(model, batch, replace(batch, positions=leaking)), least=10 * TOLERANCE)


row_lengths = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@given(row_lengths, row_lengths, st.booleans())
def test_only_keys_of_the_same_piece_are_allowed(queries: list[int], keys: list[int], causal: bool) -> None:
    keys = queries if causal else keys
    query_pieces = [piece for piece, length in enumerate(queries) for _ in range(length)]
    key_pieces = [piece for piece, length in enumerate(keys) for _ in range(length)]
    found = allowed(positions_of(tuple(queries)), positions_of(tuple(keys)), causal=causal)[0, 0]
    for query, of_query in enumerate(query_pieces):
        for key, of_key in enumerate(key_pieces):
            wanted = of_query == of_key and (key <= query or not causal)
            assert bool(found[query, key]) == (wanted or of_query >= len(keys))


@given(row_lengths)
def test_the_mask_is_the_one_that_transformers_builds_from_positions(lengths: list[int]) -> None:
    positions = positions_of(tuple(lengths))
    embedded = torch.zeros(1, positions.shape[1], 8)
    theirs = create_causal_mask(CONFIG, embedded, None, None, position_ids=positions)
    assert theirs is None or torch.equal(theirs, additive(allowed(positions, causal=True), torch.float32))
    assert theirs is not None or len(lengths) == 1


def test_bounds_are_those_of_all_pieces_of_all_rows() -> None:
    assert bounds_of(positions_of((3, 1, 2), (6,), (1, 5))).tolist() == [0, 3, 4, 6, 12, 13, 18]
