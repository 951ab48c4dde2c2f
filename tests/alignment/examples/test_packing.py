"""Rows of packed conversations, and how sources are mixed."""

from itertools import islice

import numpy as np

from components.alignment.examples.chat import Conversation, answer_tokens, conversation_tokens, prompt_tokens
from components.alignment.examples.packing import PackedRows, order_of
from components.training.engine.batches.batch import IGNORED

PAD = 4
LENGTH = 64


def conversations(number: int, source: str = "a", first: int = 100) -> list[Conversation]:
    """Conversations of 5 to 44 tokens, each with ids of its own."""
    sizes = np.random.default_rng(0).integers(5, 45, number)
    return [
        Conversation(
            ids=np.full(size, first + number, dtype=np.int32), said=np.arange(size) >= size // 2, source=source
        )
        for number, size in enumerate(sizes.tolist())
    ]


def test_an_epoch_has_every_conversation_once_in_an_order_of_its_own() -> None:
    drawn = list(islice(order_of(["a"] * 30, {}, 0), 60))
    assert sorted(drawn[:30]) == sorted(drawn[30:]) == list(range(30))
    assert drawn[:30] != drawn[30:] != list(range(30))
    assert drawn == list(islice(order_of(["a"] * 30, {}, 0), 60))


def test_sources_are_drawn_as_their_weights_say_however_many_they_have() -> None:
    sources = ["many"] * 90 + ["few"] * 3
    drawn = list(islice(order_of(sources, {"many": 1.0, "few": 3.0}, 0), 400))
    assert sum(sources[each] == "few" for each in drawn) == 300


def test_rows_hold_whole_conversations_that_begin_anew_and_learn_what_was_said() -> None:
    every = conversations(200)
    rows = PackedRows(every, order_of(["a"] * 200, {}, 0), LENGTH, PAD)
    batch = rows.batch(range(20))
    assert batch.inputs.shape == batch.labels.shape == batch.positions.shape == (20, LENGTH)
    for row in range(20):
        start = 0
        for number in rows.members(row):
            each = every[number]
            place = slice(start, start := start + each.positions)
            assert (batch.inputs[row, place] == each.ids[:-1]).all()
            assert (batch.positions[row, place] == np.arange(each.positions)).all()
            assert ((batch.labels[row, place] != IGNORED) == each.said[1:]).all()
        assert (batch.inputs[row, start:] == PAD).all() and (batch.labels[row, start:] == IGNORED).all()
    assert rows.padding_share(20) < 0.02


def test_a_row_is_the_same_whenever_it_is_asked_for() -> None:
    every = conversations(200)
    one, other = (PackedRows(every, order_of(["a"] * 200, {}, 0), LENGTH, PAD) for _ in range(2))
    late = one.batch([17]).inputs
    other.batch(range(5))
    assert (other.batch([17]).inputs == late).all()


def test_a_conversation_is_the_prompt_and_the_answer_with_its_end_said() -> None:
    ids, said = conversation_tokens([("user", [20, 21]), ("assistant", [22])])
    assert ids == prompt_tokens([20, 21]) + answer_tokens([22])
    assert said == [False] * len(prompt_tokens([20, 21])) + [True, True]
    several, learned = conversation_tokens(
        [("system", [9]), ("user", [20]), ("assistant", [21]), *[("user", [22]), ("assistant", [23])]]
    )
    assert [each for each, is_said in zip(several, learned, strict=True) if is_said] == [21, 8, 23, 8]
