"""Decontamination: what is found of planted items, what is not, and the count of shared n-grams against plain sets."""

import ast
import gzip
import json
import re
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.config import read_settings
from components.core.errors import DataError
from components.core.graph.closure import ROOT
from components.data.cleaning.decontaminate import (
    Items,
    contaminated,
    listed,
    mark,
    overlap,
    prepare,
    read_items,
    suite_statistics,
)
from components.data.config import DecontaminateConfig

CONFIG = DecontaminateConfig()
SHORT_TASKS = ROOT / CONFIG.suites[0]
HUMAN_EVAL = ROOT / read_settings({}).benchmarks / "HumanEval.jsonl.gz"
STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))


def items_of(*paths: Path) -> Items:
    return read_items(DecontaminateConfig(suites=tuple(map(str, paths))))


def tasks_of(path: Path) -> list[dict[str, str]]:
    content = path.read_bytes()
    return [json.loads(line) for line in (gzip.decompress(content) if path.suffix == ".gz" else content).splitlines()]


@cache
def library() -> tuple[str, ...]:
    """Real files to hide items in, and to find none in."""
    return tuple(path.read_text("utf-8") for path in sorted(STANDARD_LIBRARY.glob("*.py")) if path.stat().st_size)


def planted(code: str, number: int) -> str:
    return f"{library()[number % len(library())]}\n\n{code}\n\n\ndef last(x):\n    return x\n"


def renamed(code: str, *, docstring: bool) -> str:
    """Every variable under another name; the docstring kept or gone."""
    tree = ast.parse(code)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.arg = names.setdefault(node.arg, f"v{len(names)}")
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.setdefault(node.id, f"v{len(names)}")
        elif isinstance(node, ast.FunctionDef) and not docstring and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = names.get(node.id, node.id)
    return ast.unparse(tree)


def share_found(path: Path, change: Any) -> float:
    """The share of a suite's items that are found in files where they were planted after a change."""
    tasks = tasks_of(path)
    found = contaminated(items_of(path), [planted(change(task), i) for i, task in enumerate(tasks)], CONFIG.min_share)
    wanted = pl.DataFrame({"row": range(len(tasks)), "task_id": [task["task_id"] for task in tasks]})
    return found.join(wanted, on=["row", "task_id"], how="semi").height / len(tasks)


def program(task: dict[str, str]) -> str:
    return task["prompt"] + task["canonical_solution"]


COPIES = {
    "verbatim": program,
    "in another layout": lambda task: ast.unparse(ast.parse(program(task))),
    "prompt alone": lambda task: task["prompt"] + "    pass\n",
    "tests alone": lambda task: task["test"],
    "function renamed": lambda task: re.sub(rf"\b{task['entry_point']}\b", "my_function", program(task)),
    "variables renamed": lambda task: renamed(program(task), docstring=True),
    "variables renamed, docstring gone": lambda task: renamed(program(task), docstring=False),
}


@pytest.mark.skipif(not HUMAN_EVAL.exists(), reason=f"no {HUMAN_EVAL}: OVERNIGHT_BENCHMARKS names its folder")
@pytest.mark.parametrize(
    ("copy", "least", "most"),
    [
        ("verbatim", 1.0, 1.0),
        ("in another layout", 1.0, 1.0),
        ("prompt alone", 1.0, 1.0),
        ("tests alone", 1.0, 1.0),
        ("function renamed", 0.95, 1.0),
        ("variables renamed", 0.95, 1.0),
        ("variables renamed, docstring gone", 0.0, 0.05),  # stated as not covered
    ],
)
def test_planted_problems_of_human_eval(copy: str, least: float, most: float) -> None:
    assert least <= share_found(HUMAN_EVAL, COPIES[copy]) <= most


@pytest.mark.parametrize(
    ("copy", "least", "most"),
    [
        ("verbatim", 1.0, 1.0),
        ("in another layout", 1.0, 1.0),
        ("tests alone", 1.0, 1.0),
        ("prompt alone", 0.9, 1.0),
        ("function renamed", 0.5, 1.0),
        ("variables renamed, docstring gone", 0.0, 0.0),  # a solution here is one line that is in many programs
    ],
)
def test_planted_problems_of_the_suite_that_comes_with_us(copy: str, least: float, most: float) -> None:
    assert least <= share_found(SHORT_TASKS, COPIES[copy]) <= most


def test_real_files_and_look_alikes_are_left_alone() -> None:
    suites = [SHORT_TASKS, *([HUMAN_EVAL] if HUMAN_EVAL.exists() else [])]
    alike = [
        "def add(self, a, b):\n    return a + b\n",
        "def add(a, b):\n    '''Return the product of a and b.'''\n    return a * b\n",
        "def get_name(self):\n    return self.name\n\n\ndef identity(value):\n    return value\n",
        "from typing import List, Tuple\n\nfor i in range(len(x)):\n    for j in range(i + 1, len(x)):\n        pass\n",
        "def is_prime(n):\n    return n > 1 and all(n % k for k in range(2, math.isqrt(n) + 1))\n",
        "def check(candidate):\n    assert candidate([]) == []\n    assert candidate([1, 2, 3]) == [3, 2, 1]\n",
        "def largest(items):\n    '''The largest of the items, None without any.'''\n    return max(items)\n",
    ]
    found = contaminated(items_of(*suites), [*library(), *alike], CONFIG.min_share)
    assert len(library()) > 150
    assert found.is_empty(), found


WORDS = st.lists(st.sampled_from("abcd"), max_size=30).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=4), st.lists(WORDS, max_size=4), st.integers(2, 7), st.integers(1, 5))
def test_shared_ngrams_are_those_of_plain_sets(
    passages: list[str], texts: list[str], min_words: int, longer: int
) -> None:
    n = min_words + longer
    rows = {"suite": "s", "task_id": [str(i) for i in range(len(passages))], "part": "prompt", "text": passages}
    items = prepare(pl.DataFrame(rows), {}, ngram_words=n, min_words=min_words)
    expected = []
    for row, text in enumerate(texts):
        for number, passage in enumerate(passages):
            length = min(n, len(passage.split()))
            wanted = grams(passage, length) if length >= min_words else set()
            if shared := len(wanted & grams(text, length)):
                expected.append((row, str(number), shared, len(wanted)))
    assert overlap(items, texts).select("row", "task_id", "shared", "ngrams").rows() == expected


def grams(text: str, length: int) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}


def test_a_passage_shorter_than_an_ngram_matches_as_a_whole_and_a_very_short_one_never() -> None:
    rows = {"suite": "s", "task_id": ["nine", "seven"], "part": "prompt"}
    text = ["one two three four five six seven eight nine", "a b c d e f g"]
    items = prepare(pl.DataFrame({**rows, "text": text}), {"s": "0"}, ngram_words=10, min_words=8)
    assert items.passages["ngrams"].to_list() == [1, 0]
    found = overlap(items, [text[0], text[0].removesuffix(" nine"), text[1], f"x({text[0]})"])
    assert found.select("row", "task_id", "share").rows() == [(0, "nine", 1.0), (3, "nine", 1.0)]
    assert suite_statistics(items, pl.DataFrame(schema={"suite": str, "task_id": str, "id": str})) == {
        "s": {"sha256": "0", "items": 2, "items_too_short": 1, "items_found": 0, "documents_dropped": 0}
    }


def test_documents_are_marked_with_the_items_that_they_hold() -> None:
    items = items_of(SHORT_TASKS)
    tasks = tasks_of(SHORT_TASKS)
    texts = [library()[0], "\n\n".join(map(program, tasks[:5])), program(tasks[7]), program(tasks[8])]
    documents = pl.DataFrame(
        {
            "id": ["a", "b", "c", "d"],
            "path": ["1", "2", "3", "4"],
            "text": texts,
            "reason": [None, None, "too_small", None],
            "detail": [None, None, "9", None],
        }
    )
    marked = mark(documents, items, CONFIG.min_share)
    assert marked["reason"].to_list() == [None, "contaminated", "too_small", "contaminated"]
    assert marked["detail"][3] == "short_tasks:short/8 1.0"
    assert marked["detail"][1] is not None and marked["detail"][1].endswith(" and 2 more")
    assert marked["text"].to_list() == texts
    rows = listed(marked)
    assert rows["id"].to_list() == ["b"] * 5 + ["d"]
    assert set(rows.filter(id="b")["task_id"]) == {task["task_id"] for task in tasks[:5]}
    assert listed(mark(documents[:1], items, CONFIG.min_share)).is_empty()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no item in it"),
        (b"{}\n", "line 1: task_id: field required"),
        (b"{\n", "line 1: not JSON"),
        (b"[1]\n", "line 1: the line is '[1]': input should be a valid dictionary"),
        (b'{"task_id": "a", "prompt": 7}\n', "line 1: prompt is '7': input should be a valid string"),
        (SHORT_TASKS.read_bytes() + b"\n" + SHORT_TASKS.read_bytes(), "task_id 'short/0' is there twice"),
        (b"\xff", "cannot be read as JSON lines"),
        (None, "cannot be read as JSON lines"),
    ],
)
def test_a_suite_that_cannot_be_used_is_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "suite.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        items_of(path)
    assert str(caught.value).startswith(str(path)) and message in str(caught.value) and "\n" not in str(caught.value)


OTHER_FORMATS = {
    "MBPP": {
        "task_id": 602,
        "text": "Write a python function to find the first repeated character in a given string.",
        "code": "def first_repeated_char(text):\r\n  for index, c in enumerate(text):\r\n    if c in text[:index]:\r\n"
        "      return c",
        "test_list": ['assert first_repeated_char("abcabc") == "a"', 'assert first_repeated_char("abc") == None'],
    },
    "MultiPL-E": {
        "name": "HumanEval_23_strlen",
        "language": "js",
        "prompt": "//Return length of given string, which may be empty, in UTF-16 units\nfunction strlen(string){\n",
        "tests": "const assert = require('node:assert');\nfunction test() {\n  assert.deepEqual(strlen(''), 0);\n}\n",
        "stop_tokens": ["\nfunction "],
    },
}


@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_every_format_that_evaluation_runs_is_looked_for(tmp_path: Path, name: str) -> None:
    line = OTHER_FORMATS[name]
    path = tmp_path / "suite.jsonl"
    path.write_text(json.dumps(line) + "\n")
    copies = [str(line.get(field, "")) for field in ("text", "prompt", "code", "tests")]
    found = contaminated(items_of(path), [*copies, "\n".join(line.get("test_list", [])), *library()], CONFIG.min_share)
    wanted = {"MBPP": ("MBPP/602", [0, 2, 4]), "MultiPL-E": ("HumanEval_23_strlen", [1, 3])}[name]
    assert (found["task_id"].unique().to_list(), sorted(found["row"])) == ([wanted[0]], wanted[1])


def test_two_suites_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "short_tasks.jsonl").write_bytes(SHORT_TASKS.read_bytes())
    with pytest.raises(DataError, match="a second suite of the name short_tasks"):
        items_of(SHORT_TASKS, tmp_path / "short_tasks.jsonl")
