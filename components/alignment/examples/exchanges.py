"""Conversations for an encoder-decoder: the encoder reads all before an answer, the decoder says it. Only numpy.

Every answer of a conversation is an exchange of its own. A row holds several side by side on both sides; none attends
to another (components.training.engine.model.masks). A decoder begins each answer with the token that fills up rows, as
in pretraining.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.alignment.examples.chat import Conversation
from components.alignment.examples.packing import Rows
from components.training.engine.batches.batch import IGNORED, Batch

MULTIPLE = 8  # positions of a decoder's rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What is read, shape (n,), and what is said, its end included, shape (m,)."""

    prompt: NDArray[np.int32]
    answer: NDArray[np.int32]
    source: str = ""


def exchanges_of(conversation: Conversation) -> list[Exchange]:
    """One for each answer, in their order."""
    said = np.concatenate([[False], conversation.said, [False]]).astype(np.int8)
    changes = np.diff(said)
    starts, stops = np.flatnonzero(changes == 1).tolist(), np.flatnonzero(changes == -1).tolist()
    return [
        Exchange(prompt=conversation.ids[:start], answer=conversation.ids[start:stop], source=conversation.source)
        for start, stop in zip(starts, stops, strict=True)
    ]


def answer_positions(exchanges: Sequence[Exchange], length: int) -> int:
    """Positions of a decoder's rows beside `length` of its encoder's, so that both fill up alike; at least the longest
    answer."""
    prompts, answers = (sum(len(getattr(each, name)) for each in exchanges) for name in ("prompt", "answer"))
    even = min(length, round(length * answers / max(1, prompts)))
    longest = max((len(each.answer) for each in exchanges), default=1)
    return -(-max(even, longest) // MULTIPLE) * MULTIPLE


def two_sided(rows: Sequence[Sequence[Exchange]], length: int, answer_length: int, pad: int) -> Batch:
    """Rows of some exchanges each: (rows, answer_length) of the decoder, (rows, length) of the encoder."""
    encoder, encoder_positions = _empty(len(rows), length, pad)
    inputs, positions = _empty(len(rows), answer_length, pad)
    labels = np.full(inputs.shape, IGNORED, np.int64)
    for number, row in enumerate(rows):
        read = said = 0
        for each in row:
            given, asked = slice(read, read + len(each.prompt)), slice(said, said + len(each.answer))
            encoder[number, given] = each.prompt
            inputs[number, asked], labels[number, asked] = [pad, *each.answer[:-1]], each.answer
            read, said = given.stop, asked.stop
            encoder_positions[number, read:] = np.arange(length - read)
            positions[number, said:] = np.arange(answer_length - said)
    return Batch(
        inputs=inputs,
        labels=labels,
        positions=positions,
        sources=np.zeros(len(rows), np.int64),
        encoder_inputs=encoder,
        encoder_positions=encoder_positions,
    )


def _empty(rows: int, width: int, pad: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tokens and positions of rows that are padding."""
    return np.full((rows, width), pad, np.int64), np.tile(np.arange(width), (rows, 1))


class PackedExchanges(Rows):
    """Rows of exchanges, for an encoder-decoder."""

    def __init__(
        self, exchanges: Sequence[Exchange], order: Iterator[int], length: int, answer_length: int, pad: int
    ) -> None:
        """`length` positions of the encoder's row and `answer_length` of the decoder's; no exchange may need more."""
        self.exchanges = exchanges
        sizes = [(len(each.prompt), len(each.answer)) for each in exchanges]
        super().__init__(sizes, order, (length, answer_length), pad)

    def batch(self, rows: Sequence[int]) -> Batch:
        """See two_sided."""
        read, said = self.room
        return two_sided([[self.exchanges[each] for each in self.members(row)] for row in rows], read, said, self.pad)
