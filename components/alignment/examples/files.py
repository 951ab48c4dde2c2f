"""Instructions that people bring: JSON lines in the forms that are in use.

    chat       {"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}
    prompt     {"prompt": ..., "completion": ...}
    alpaca     {"instruction": ..., "input": ... (may be absent), "output": ...}
    sharegpt   {"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}

Covers: several turns (each answer is learned), a system text first, a byte order mark, gzip where the name ends in .gz.
Not covered: tools and pictures inside a message, answers that were rejected (preferences).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from components.alignment.examples.instruction import Instruction, Message
from components.core.errors import DataError
from components.data.cleaning.suite_formats import json_lines

Format = Literal["chat", "prompt", "alpaca", "sharegpt"]
SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
FIELDS: dict[str, Format] = {
    "messages": "chat",
    "prompt": "prompt",
    "instruction": "alpaca",
    "conversations": "sharegpt",
}


def read_file(path: Path, *, name: str, licence: str | None) -> list[Instruction]:
    """Every line as an instruction. Raises DataError with file, line and field for the first one that is none."""
    instructions = []
    for number, (value, where) in enumerate(json_lines(path)):
        form = next((form for field, form in FIELDS.items() if isinstance(value, dict) and field in value), None)
        if form is None:
            keys = ", ".join(map(str, list(value)[:5])) if isinstance(value, dict) else type(value).__name__
            raise DataError(f"{where}: found {keys}, needed an object with one of {', '.join(FIELDS)}")
        messages = READERS[form](value, where)
        _check_turns(messages, where)
        *history, prompt, answer = messages
        instructions.append(
            Instruction(
                name=f"{name}:{number + 1}",
                prompt=prompt.content,
                answer=answer.content,
                kind="chat",
                source=name,
                licence=licence,
                history=tuple(history),
            )
        )
    if not instructions:
        raise DataError(f"{path}: no instruction in it, needed a JSON object a line")
    return instructions


def _text(value: dict[str, Any], field: str, where: str, *, default: str | None = None) -> str:
    text = value.get(field, default)
    if not isinstance(text, str):
        found = "nothing" if text is None else type(text).__name__
        raise DataError(f"{where}: {field}: found {found}, needed a text")
    return text


def _turns(field: str, speaker: str, content: str) -> Callable[[dict[str, Any], str], list[Message]]:
    """A reader of a list of turns."""

    def read(value: dict[str, Any], where: str) -> list[Message]:
        turns = value[field]
        if not isinstance(turns, list) or not all(isinstance(each, dict) for each in turns):
            raise DataError(f"{where}: {field}: found {type(turns).__name__}, needed a list of objects")
        messages = []
        for number, turn in enumerate(turns):
            here = f"{where}: {field}.{number}"
            role = SPEAKERS.get(_text(turn, speaker, here))
            if role is None:
                raise DataError(f"{here}.{speaker}: found {turn[speaker]!r}, needed one of {', '.join(SPEAKERS)}")
            messages.append(Message(role=role, content=_text(turn, content, here)))  # type: ignore[arg-type]
        return messages

    return read


def _pair(prompt: str, answer: str, *more: str) -> Callable[[dict[str, Any], str], list[Message]]:
    """A reader of two fields, and of further ones that belong to the prompt where they say something."""

    def read(value: dict[str, Any], where: str) -> list[Message]:
        asked = [_text(value, prompt, where), *(_text(value, each, where, default="") for each in more)]
        return [
            Message(role="user", content="\n\n".join(each for each in asked if each)),
            Message(role="assistant", content=_text(value, answer, where)),
        ]

    return read


def _check_turns(messages: Sequence[Message], where: str) -> None:
    """Raise DataError unless user and assistant take turns, after a system text or none, and all say something."""
    spoken = [each.role for each in messages]
    turns = spoken[1:] if spoken[:1] == ["system"] else spoken
    if "assistant" not in turns:
        raise DataError(f"{where}: no turn of the assistant, needed an answer to learn")
    for number, role in enumerate(turns):
        due = ("user", "assistant")[number % 2]
        if role != due:
            raise DataError(f"{where}: turn {number + 1} is of the {role}, needed one of the {due}: they take turns")
    if turns[-1] != "assistant":
        raise DataError(f"{where}: the last turn is of the {turns[-1]}, needed one of the assistant")
    if empty := next((each.role for each in messages if not each.content.strip()), None):
        raise DataError(f"{where}: a turn of the {empty} is empty, needed a text")


READERS: dict[Format, Callable[[dict[str, Any], str], list[Message]]] = {
    "chat": _turns("messages", "role", "content"),
    "prompt": _pair("prompt", "completion"),
    "alpaca": _pair("instruction", "output", "input"),
    "sharegpt": _turns("conversations", "from", "value"),
}
