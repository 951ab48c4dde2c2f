"""Labelled texts: what is read, refused and left out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.alignment.classification.labelled import read_texts
from components.alignment.config import ClassifyConfig
from components.core.errors import DataError

SUITES = ClassifyConfig(files=("-",)).suites
GOOD = {"text": "good", "label": "a"}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def lines(*values: Any) -> str:
        (tmp_path / "labelled.jsonl").write_text("\n".join(json.dumps(each) for each in values))
        return str(tmp_path / "labelled.jsonl")

    return lines


def test_texts_with_one_label_each(write: Callable[..., str]) -> None:
    path = write(GOOD, {"text": "asked", "answer": "said", "label": "b"}, {"text": "other", "label": "a"}, GOOD)
    read = read_texts([path], [])
    assert read.names == ("a", "b") and not read.several
    assert [each.answer for each in read.texts] == [None, "said", None], "each once"
    assert read.targets(read.texts).tolist() == [[0], [1], [0]]
    assert [*read.digests] == [path]


def test_a_list_makes_every_label_a_question_of_its_own(write: Callable[..., str]) -> None:
    read = read_texts([write(GOOD, {"text": "both", "label": ["b", "a"]}, {"text": "none", "label": []})], [])
    assert read.several and read.targets(read.texts).tolist() == [[1, 0], [1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ([1], "line 2: found list, needed an object with text and label"),
        ({"label": "a"}, "line 2: text: found nothing, needed a text"),
        ({"text": " ", "label": "a"}, "line 2: text: found an empty text, needed a text"),
        ({"text": "x", "answer": 3, "label": "a"}, "line 2: answer: found int, needed a text"),
        ({"text": "x"}, "line 2: label: found None, needed a text, or a list of them"),
        ({"text": "x", "label": ["a", 1]}, "line 2: label: found 1, needed a text, or a list of them"),
        ({"text": "good", "label": "b"}, "line 2: label: found b, an earlier line has a for this text"),
        ({"text": "x", "label": "a"}, "found 2 texts with the labels a, needed two labels at least"),
    ],
)
def test_a_mistake_is_named_by_file_line_and_field(write: Callable[..., str], line: Any, says: str) -> None:
    path = write(GOOD, line)
    with pytest.raises(DataError) as error:
        read_texts([path], [])
    assert str(error.value).startswith(path) and says in str(error.value)


def test_what_the_safety_suites_ask_is_not_learned(write: Callable[..., str]) -> None:
    asked = [json.loads(Path(suite).read_text().splitlines()[0]) for suite in SUITES]
    red, look_alike, labelled = asked
    path = write(
        GOOD,
        {"text": "fine", "label": "b"},
        {"text": red["text"].upper() + "\n", "label": "a"},
        {"text": red["translation"], "label": "a"},
        {"text": look_alike["text"], "answer": "yes", "label": "b"},
        {"text": "anything", "answer": labelled["answer"], "label": "b"},
    )
    read = read_texts([path], SUITES)
    assert [each.text for each in read.texts] == ["good", "fine"] and read.measured == 4
