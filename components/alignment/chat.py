"""The chat form of an instruction, as token ids: <|user|>prompt<|end|><|assistant|>answer<|end|>."""

from collections.abc import Sequence

from components.tokens.special import ASSISTANT_ID, END_ID, END_OF_TEXT_ID, SYSTEM_ID, USER_ID

STOP_IDS = (END_ID, END_OF_TEXT_ID)


def prompt_tokens(prompt: Sequence[int], system: Sequence[int] = ()) -> list[int]:
    """Everything before the answer; a system text comes first where there is one."""
    head = [SYSTEM_ID, *system, END_ID] if system else []
    return [*head, USER_ID, *prompt, END_ID, ASSISTANT_ID]


def answer_tokens(answer: Sequence[int]) -> list[int]:
    """The answer and its end: what the model learns to write."""
    return [*answer, END_ID]
