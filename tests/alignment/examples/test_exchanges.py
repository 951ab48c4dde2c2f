"""Rows of an encoder-decoder: what is read and what is said lie side by side, and belong together."""

import numpy as np
import torch

from components.alignment.examples.chat import Conversation, conversation_tokens
from components.alignment.examples.exchanges import Exchange, PackedExchanges, answer_positions, exchanges_of
from components.alignment.examples.packing import order_of
from components.training.engine.batches.batch import IGNORED, joined
from components.training.engine.model.masks import allowed

PAD = 4
LENGTH = 128


def exchanges(number: int) -> list[Exchange]:
    """Prompts of 5 to 44 tokens and answers of 2 to 19, each with ids of its own: the answer's are the prompt's + 1."""
    draws = np.random.default_rng(0).integers((5, 2), (45, 20), (number, 2))
    return [
        Exchange(prompt=np.full(read, 100 + 2 * place, np.int32), answer=np.full(said, 101 + 2 * place, np.int32))
        for place, (read, said) in enumerate(draws.tolist())
    ]


def rows(every: list[Exchange]) -> PackedExchanges:
    order = order_of(["a"] * len(every), {}, 0)
    return PackedExchanges(every, order, LENGTH, answer_positions(every, LENGTH), PAD)


def test_each_answer_is_an_exchange_that_reads_all_before_it() -> None:
    turns = [("user", [20]), ("assistant", [21, 22]), ("user", [23]), ("assistant", [24])]
    ids, said = conversation_tokens(turns)
    first, second = exchanges_of(Conversation(ids=np.array(ids, np.int32), said=np.array(said), source="a"))
    assert (first.prompt.tolist(), first.answer.tolist()) == ([6, 20, 8, 7], [21, 22, 8])
    assert (second.prompt.tolist(), second.answer.tolist()) == (ids[:-2], [24, 8])
    assert first.source == second.source == "a"


def test_an_answer_sees_its_own_prompt_and_what_it_has_said() -> None:
    every = exchanges(300)
    packed = rows(every)
    batch = packed.batch(range(12))
    assert batch.encoder_inputs is not None and batch.encoder_positions is not None
    shown = allowed(torch.from_numpy(batch.positions), torch.from_numpy(batch.encoder_positions))[:, 0].numpy()
    for row in range(12):
        members = packed.members(row)
        read = np.concatenate([every[each].prompt for each in members])
        said = np.concatenate([every[each].answer for each in members])
        assert (batch.encoder_inputs[row, : len(read)] == read).all()
        assert (batch.labels[row, : len(said)] == said).all() and (batch.labels[row, len(said) :] == IGNORED).all()
        begins = batch.positions[row, : len(said)] == 0
        assert (batch.inputs[row, : len(said)][begins] == PAD).all() and begins.sum() == len(members)
        assert (batch.inputs[row, 1 : len(said)][~begins[1:]] == said[:-1][~begins[1:]]).all()
        for place, token in enumerate(said.tolist()):
            assert set(batch.encoder_inputs[row][shown[row, place]].tolist()) == {token - 1}


def test_little_of_either_side_is_padding() -> None:
    assert rows(exchanges(600)).padding_share(40) < 0.03


def test_batches_of_different_answers_lie_below_each_other() -> None:
    every = exchanges(300)
    wide = rows(every).batch(range(3))
    narrow = PackedExchanges(every, order_of(["a"] * 300, {}, 1), LENGTH, 24, PAD).batch(range(2))
    batch = joined([wide, narrow], PAD)
    assert len(batch) == 5 and batch.num_labels == wide.num_labels + narrow.num_labels
    assert (batch.inputs[3:, :24] == narrow.inputs).all() and (batch.inputs[3:, 24:] == PAD).all()
    assert (batch.labels[3:, 24:] == IGNORED).all() and (batch.positions[3:, 24] == 0).all()
    assert batch.encoder_inputs is not None and narrow.encoder_inputs is not None
    assert (batch.encoder_inputs[3:] == narrow.encoder_inputs).all()


def test_shares_of_a_batch_are_the_batch() -> None:
    batch = rows(exchanges(300)).batch(range(6))
    shares = [batch.every(place, 3) for place in range(3)]
    again = joined([each.rows(row, row + 1) for row in range(2) for each in shares], PAD)
    assert (again.inputs == batch.inputs).all() and (again.encoder_inputs == batch.encoder_inputs).all()
