"""Instructions in people's files, and what is said of a mistake in one."""

import json
from pathlib import Path

import pytest

from components.alignment.examples.files import read_file
from components.alignment.examples.instruction import Message, read_instructions, to_table
from components.core.errors import DataError

TURNS = [{"role": "user", "content": "Say a."}, {"role": "assistant", "content": "a"}]


def write(path: Path, *lines: object, prefix: bytes = b"") -> Path:
    path.write_bytes(prefix + "\n".join(json.dumps(each) for each in lines).encode())
    return path


def test_every_form_is_the_same_instruction(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.jsonl",
        {"messages": TURNS},
        {"prompt": "Say a.", "completion": "a"},
        {"instruction": "Say", "input": "a.", "output": "a"},
        {"conversations": [{"from": "human", "value": "Say a."}, {"from": "gpt", "value": "a"}]},
        prefix=b"\xef\xbb\xbf",
    )
    read = read_file(path, name="mine", licence="MIT")
    assert [each.answer for each in read] == ["a"] * 4
    assert [each.prompt for each in read] == ["Say a.", "Say a.", "Say\n\na.", "Say a."]
    assert {(each.kind, each.source, each.licence, each.use) for each in read} == {("chat", "mine", "MIT", "tuning")}


def test_several_turns_and_a_system_text_are_kept_through_the_table(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be short."}, *TURNS, {"role": "user", "content": "b?"}, TURNS[1]]
    (read,) = read_file(write(tmp_path / "x.jsonl", {"messages": turns}), name="x", licence=None)
    assert [each.role for each in read.messages] == ["system", "user", "assistant", "user", "assistant"]
    to_table([read]).write_parquet(tmp_path / "instructions.parquet")
    assert read_instructions(tmp_path, ["tuning"]) == [read]
    assert read.history[0] == Message(role="system", content="Be short.")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({"messages": TURNS[:1]}, "no turn of the assistant, needed an answer to learn"),
        ({"messages": [TURNS[1]]}, "turn 1 is of the assistant, needed one of the user"),
        ({"messages": [TURNS[0], *TURNS]}, "turn 2 is of the user, needed one of the assistant"),
        ({"messages": [*TURNS, TURNS[0]]}, "the last turn is of the user"),
        ({"messages": [TURNS[0], {"role": "assistant", "content": " "}]}, "a turn of the assistant is empty"),
        ({"messages": [{"role": "robot", "content": "x"}]}, r"messages\.0\.role: found 'robot', needed one of"),
        ({"messages": [{"role": "user", "content": 3}]}, r"messages\.0: content: found int, needed a text"),
        ({"messages": "hello"}, "messages: found str, needed a list of objects"),
        ({"prompt": "x"}, "completion: found nothing, needed a text"),
        ({"question": "x", "reply": "y"}, "found question, reply, needed an object with one of messages"),
        ([1], "found list, needed an object"),
    ],
)
def test_a_mistake_is_one_line_with_file_line_and_field(tmp_path: Path, line: object, problem: str) -> None:
    path = write(tmp_path / "bad.jsonl", {"prompt": "x", "completion": "y"}, line)
    with pytest.raises(DataError, match=rf"bad\.jsonl: line 2: .*{problem}") as caught:
        read_file(path, name="bad", licence=None)
    assert "\n" not in str(caught.value)


def test_a_file_without_a_line_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no instruction in it"):
        read_file(write(tmp_path / "empty.jsonl"), name="empty", licence=None)
