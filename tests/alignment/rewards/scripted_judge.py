"""Judges by a script, behind a real HTTP server: they read what they are shown as a model would, and are swayed."""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.inference.chat_server import ChatServer, Response, chat_server

_SHOWN = re.compile(
    r"----- (?P<code>\w+) task\n(?P<task>.*)\n----- (?P=code) answer A\n(?P<a>.*)\n"
    r"----- (?P=code) answer B\n(?P<b>.*)\n----- (?P=code) end",
    re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a judge is shown: the code, the task and both answers in their order."""

    code: str
    task: str
    a: str
    b: str


def shown_in(body: dict[str, Any]) -> Shown:
    """What a request shows a judge."""
    match = _SHOWN.search(body["messages"][-1]["content"])
    assert match is not None
    return Shown(**match.groupdict())


def share(*texts: str) -> float:
    """A number from 0 to 1 that looks drawn and is the same for the same texts."""
    return int.from_bytes(hashlib.sha256("\0".join(texts).encode()).digest()[:8]) / 2**64


@contextmanager
def scripted_judge(line: Callable[[Shown], str | Response]) -> Iterator[ChatServer]:
    """A judge that replies to what it is shown with the line of a script."""
    with chat_server(lambda body: line(shown_in(body))) as server:
        yield server


def better(shown: Shown, *, is_a: bool, words: str = "better") -> str:
    """A verdict in the form that is asked for."""
    return f"{shown.code}: {'A' if is_a else 'B'} {words}"
