"""The chat form of an instruction, as token ids: ours is <|user|>prompt<|end|><|assistant|>answer<|end|>.

A checkpoint that was continued keeps its own (components.tokens.encoding.chat_form).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from components.tokens.encoding.chat_form import ChatForm
from components.tokens.encoding.special import OURS, SpecialTokens


def chat_of(special: SpecialTokens) -> ChatForm:
    """The chat form of a tokenizer that has one."""
    assert special.chat is not None, "the stage tokenize refuses a tokenizer without chat"
    return special.chat


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Token ids, shape (n + 1,), and which of them are said by the assistant, likewise: those are learned.

    source    what it is mixed by
    columns   of each id, shape (n + 1,): what a loss of its own reads beside them
    """

    ids: NDArray[np.int32]
    said: NDArray[np.bool_]
    source: str = ""
    columns: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def positions(self) -> int:
        """Positions that it fills."""
        return len(self.ids) - 1


def stop_ids(special: SpecialTokens = OURS) -> tuple[int, int]:
    """What ends an answer."""
    return chat_of(special).end, special.end_of_text


def prompt_tokens(prompt: Sequence[int], system: Sequence[int] = (), *, special: SpecialTokens = OURS) -> list[int]:
    """Everything before the answer; a system text comes first where there is one."""
    turns = [("system", system), ("user", prompt)] if system else [("user", prompt)]
    return chat_of(special).prompt(turns)


def answer_tokens(answer: Sequence[int], *, special: SpecialTokens = OURS) -> list[int]:
    """The answer and its end: what the model learns to write."""
    return chat_of(special).answer(answer)


def conversation_tokens(
    messages: Sequence[tuple[str, Sequence[int]]], *, special: SpecialTokens = OURS
) -> tuple[list[int], list[bool]]:
    """A whole conversation of (role, ids of the content), ended by an answer; and which ids the assistant says: answers
    and the tokens that end them."""
    chat = chat_of(special)
    has_system = bool(messages) and messages[0][0] == "system"
    ids = [*chat.begin, *(() if has_system else chat.default_system)]
    said = [False] * len(ids)
    for role, content in messages:
        turn = chat.turn(role, content)
        first, last = len(chat.opening[role]), len(turn) - len(chat.closing[role])
        ids += turn
        said += [role == "assistant" and first <= place <= last for place in range(len(turn))]
    behind = len(chat.closing["assistant"]) - 1  # of the last answer: nobody says what follows its end
    return ids[: len(ids) - behind], said[: len(said) - behind]
