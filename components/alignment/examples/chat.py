"""The chat form of an instruction, as token ids: <|user|>prompt<|end|><|assistant|>answer<|end|>."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.tokens.encoding.special import OURS, SpecialTokens

CHECKED = "the stage tokenize refuses a tokenizer without chat"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Token ids, shape (n + 1,), and which of them are said by the assistant, likewise: those are learned.

    source   what it is mixed by
    """

    ids: NDArray[np.int32]
    said: NDArray[np.bool_]
    source: str = ""

    @property
    def positions(self) -> int:
        """Positions that it fills."""
        return len(self.ids) - 1


def stop_ids(special: SpecialTokens = OURS) -> tuple[int, int]:
    """What ends an answer."""
    assert special.end is not None, CHECKED
    return special.end, special.end_of_text


def prompt_tokens(prompt: Sequence[int], system: Sequence[int] = (), *, special: SpecialTokens = OURS) -> list[int]:
    """Everything before the answer; a system text comes first where there is one."""
    assert special.system is not None and special.user is not None, CHECKED
    assert special.assistant is not None and special.end is not None, CHECKED
    head = [special.system, *system, special.end] if system else []
    return [*head, special.user, *prompt, special.end, special.assistant]


def answer_tokens(answer: Sequence[int], *, special: SpecialTokens = OURS) -> list[int]:
    """The answer and its end: what the model learns to write."""
    assert special.end is not None, CHECKED
    return [*answer, special.end]


def conversation_tokens(
    messages: Sequence[tuple[str, Sequence[int]]], *, special: SpecialTokens = OURS
) -> tuple[list[int], list[bool]]:
    """A whole conversation of (role, content's ids), and which ids the assistant says: its answers and their ends."""
    assert special.system is not None and special.user is not None, CHECKED
    assert special.assistant is not None and special.end is not None, CHECKED
    marks = {"system": special.system, "user": special.user, "assistant": special.assistant}
    ids: list[int] = []
    said: list[bool] = []
    for role, content in messages:
        ids += [marks[role], *content, special.end]
        said += [False, *[role == "assistant"] * (len(content) + 1)]
    return ids, said
