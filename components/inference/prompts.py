"""Prompts as token ids. Text is encoded as text: what looks like a special token in it stays ordinary characters."""

from collections.abc import Sequence
from typing import Final, Literal, TypedDict

from components.tokens.special import (
    ASSISTANT_ID,
    END_ID,
    END_OF_TEXT_ID,
    FIM_MIDDLE_ID,
    FIM_PREFIX_ID,
    FIM_SUFFIX_ID,
    ROLE_IDS,
)
from components.tokens.text import TextCodec

COMPLETION_STOP_IDS: Final = (END_OF_TEXT_ID,)
"""What ends a completion or a middle."""
CHAT_STOP_IDS: Final = (END_ID, END_OF_TEXT_ID)
"""What ends an answer."""


class Message(TypedDict):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


def completion_prompt(codec: TextCodec, prefix: str, max_tokens: int | None = None) -> list[int]:
    """<|endoftext|>prefix, as a document begins in training; cut on the left to the last `max_tokens`."""
    tokens = [END_OF_TEXT_ID, *codec.encode(prefix)]
    return tokens if max_tokens is None else tokens[-max_tokens:]


def fim_prompt(codec: TextCodec, prefix: str, suffix: str, max_tokens: int | None = None) -> list[int]:
    """<|fim_prefix|>prefix<|fim_suffix|>suffix<|fim_middle|>, whose continuation is the middle.

    With `max_tokens`, text far from the cursor goes first: a suffix keeps at most a third of the room, more where the
    prefix is short.
    """
    before, after = codec.encode(prefix), codec.encode(suffix)
    if max_tokens is not None:
        room = max(0, max_tokens - 3)
        after = after[: max(room // 3, room - len(before))]
        before = before[max(0, len(before) - (room - len(after))) :]
    return [FIM_PREFIX_ID, *before, FIM_SUFFIX_ID, *after, FIM_MIDDLE_ID]


def chat_prompt(codec: TextCodec, messages: Sequence[Message]) -> list[int]:
    """Every turn as <|role|>text<|end|>, then <|assistant|>, whose continuation is the answer.

    Raises ValueError for a role that is not system, user or assistant.
    """
    tokens: list[int] = []
    for message in messages:
        tokens += chat_turn(codec, message["role"], message["content"])
    return [*tokens, ASSISTANT_ID]


def chat_turn(codec: TextCodec, role: str, content: str) -> list[int]:
    """<|role|>text<|end|>. Raises ValueError for a role that is not system, user or assistant."""
    if role not in ROLE_IDS:
        raise ValueError(f"role is {role!r}; allowed: {', '.join(ROLE_IDS)}")
    return [ROLE_IDS[role], *codec.encode(content), END_ID]
