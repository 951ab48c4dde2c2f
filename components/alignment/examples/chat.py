"""The chat form of an instruction, as token ids: <|user|>prompt<|end|><|assistant|>answer<|end|>."""

from collections.abc import Sequence

from components.tokens.encoding.special import OURS, SpecialTokens

CHECKED = "the stage tokenize refuses a tokenizer without chat"


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
