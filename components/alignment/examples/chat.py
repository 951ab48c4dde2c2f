"""The chat form of an instruction, as token ids: ours is <|user|>prompt<|end|><|assistant|>answer<|end|>.

A checkpoint that was continued keeps its own (components.tokens.encoding.chat_form).
"""

from collections.abc import Sequence

from components.tokens.encoding.chat_form import ChatForm
from components.tokens.encoding.special import OURS, SpecialTokens


def chat_of(special: SpecialTokens) -> ChatForm:
    """The chat form of a tokenizer that has one."""
    assert special.chat is not None, "the stage tokenize refuses a tokenizer without chat"
    return special.chat


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
