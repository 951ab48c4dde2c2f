"""Prompts as token ids. Text is encoded as text: what looks like a special token in it stays ordinary characters."""

from collections.abc import Sequence
from typing import Literal, TypedDict

from components.tokens.encoding.chat_form import ChatForm
from components.tokens.encoding.codec import TextCodec


def completion_stop_ids(codec: TextCodec) -> tuple[int, ...]:
    """What ends a completion or a middle: the end of the text, and where the next file of a package would begin."""
    return tuple(each for each in (codec.special.end_of_text, codec.special.file_sep) if each is not None)


def chat_stop_ids(codec: TextCodec) -> tuple[int, ...]:
    """What ends an answer. Raises ValueError for a tokenizer without chat."""
    return (_chat(codec).end, codec.special.end_of_text)


class Message(TypedDict):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


def completion_prompt(
    codec: TextCodec, prefix: str, max_tokens: int | None = None, context: Sequence[int] = ()
) -> list[int]:
    """<|endoftext|>prefix, as a document begins in training; cut on the left to the last `max_tokens`.

    context     related files before the prefix (components.inference.repository_context)
    """
    tokens = [codec.special.end_of_text, *context, *codec.encode(prefix)]
    return tokens if max_tokens is None else tokens[-max_tokens:]


def fim_prompt(
    codec: TextCodec, prefix: str, suffix: str, max_tokens: int | None = None, context: Sequence[int] = ()
) -> list[int]:
    """<|fim_prefix|>prefix<|fim_suffix|>suffix<|fim_middle|>, whose continuation is the middle.

    The form of half of what components.training.engine.objectives.infill writes, token for token (tests/training). The
    other half gives the suffix first, which would save work only to an engine that keeps keys from prompt to prompt.

    With `max_tokens`, text far from the cursor goes first: a suffix keeps at most a third of the room, more where the
    prefix is short. `context`, related files before the form (components.inference.repository_context), stays whole.
    """
    before, after = codec.encode(prefix), codec.encode(suffix)
    if max_tokens is not None:
        room = max(0, max_tokens - len(context) - 3)
        after = after[: max(room // 3, room - len(before))]
        before = before[max(0, len(before) - (room - len(after))) :]
    form = [_id(codec, "fim_prefix"), *before, _id(codec, "fim_suffix"), *after, _id(codec, "fim_middle")]
    return [*context, *form]


def chat_prompt(codec: TextCodec, messages: Sequence[Message]) -> list[int]:
    """Every turn in the tokenizer's chat form, ours being <|role|>text<|end|>, and what opens the answer.

    Raises ValueError for a role that is not system, user or assistant, and for a tokenizer without chat.
    """
    return _chat(codec).prompt([(each["role"], codec.encode(each["content"])) for each in messages])


def _chat(codec: TextCodec) -> ChatForm:
    """The chat form of a tokenizer. Raises ValueError for one without."""
    if codec.special.chat is None:
        raise ValueError("the tokenizer has no chat form; the stage vocabulary gives every tokenizer one")
    return codec.special.chat


def _id(codec: TextCodec, field: str) -> int:
    """The id of a special token. Raises ValueError for a tokenizer that lacks it."""
    token_id = getattr(codec.special, field)
    if token_id is None:
        raise ValueError(f"the tokenizer has no token for {field}; the stage vocabulary gives every tokenizer one")
    return int(token_id)
