"""Names of programs against Python's own tokenizer, and whether they are right, name by name."""

import functools
import inspect
import io
import json
import keyword
import tokenize
from pathlib import Path

import numpy as np
import pytest

from components.evaluation.measures.identifiers import identifier_accuracy, identifiers
from components.inference.engine import Prediction
from components.tokens.encoding.codec import TextCodec
from tests.serving.random_model import write_random_model

SOURCE = inspect.getsource(json.decoder) + inspect.getsource(functools)
SOFT = {"match", "case", "_", "type"}


def by_tokenizer(source: str) -> set[str]:
    """line:column:name of every name; without keywords and what an import has dots in."""
    lines = source.split("\n")
    names = [each for each in tokenize.generate_tokens(io.StringIO(source).readline) if each.type == tokenize.NAME]
    return {
        f"{line}:{column}:{each.string}"
        for each in names
        for line, column in [each.start]
        if not keyword.iskeyword(each.string) and each.string not in SOFT and not is_import(lines[line - 1])
    }


def is_import(line: str) -> bool:
    return line.lstrip().startswith(("import ", "from "))


def test_names_are_those_of_pythons_tokenizer() -> None:
    found = set()
    for start, stop in identifiers(SOURCE, "python"):
        before = SOURCE[:start]
        line = before.split("\n")[-1]
        text = (line + SOURCE[start:]).split("\n")[0]
        name = SOURCE[start:stop]
        if not is_import(text) and name not in SOFT:
            found.add(f"{before.count(chr(10)) + 1}:{len(line)}:{name}")
    wanted = by_tokenizer(SOURCE)
    assert len(wanted) > 1000
    assert len(found & wanted) > 0.98 * len(wanted)  # names in replacement fields are strings to one of them
    assert len(found - wanted) < 0.02 * len(wanted)  # and names to the other


@pytest.mark.parametrize(
    ("language", "text", "names"),
    [
        ("javascript", "const total = add(left, 2); // not this\n", {"total", "add", "left"}),
        ("go", 'func Add(a int) int { return a + len("b") }\n', {"Add", "a", "len"}),
        ("rust", "fn add(a: u8) -> u8 { a }\n", {"add", "a"}),
        ("c", "static long add(long a) { return a; }\n", {"add", "a"}),
        ("shell", "total=1\necho no\n", {"total"}),
        ("a language without a lexer", "x = 1\n", set()),
    ],
)
def test_names_in_other_languages(language: str, text: str, names: set[str]) -> None:
    found = {text[start:stop] for start, stop in identifiers(text, language)}
    assert names <= found
    assert not {"not", "this", "b", "return", "static", "fn"} & found


def test_a_name_is_right_when_all_its_tokens_are(tmp_path: Path) -> None:
    """Tokens of a real tokenizer, each right or wrong at random; every name looked up by hand."""
    codec = TextCodec(write_random_model(tmp_path / "model", 0))
    text = SOURCE[:4000].replace("key", "ké")
    spans, names = codec.spans_batch([text])[0], identifiers(text, "python")
    assert len(spans) == len(codec.encode(text))
    right = np.random.default_rng(0).random(len(spans) + 1) < 0.9
    wanted = []
    for start, stop in names:
        inside = [index for index, (low, high) in enumerate(spans) if low < stop and high > start]
        assert text[start:stop] in text[spans[inside[0]][0] : spans[inside[-1]][1]]
        wanted.append(all(right[index] for index in inside))
    prediction = Prediction(
        log_probs=np.where(right, -1.0, -2.0).astype(np.float32), top_log_probs=np.full(len(right), -1, np.float32)
    )
    assert 0.2 < np.mean(wanted) < 0.95
    assert identifier_accuracy([prediction], [spans], [names])[0] == pytest.approx(np.mean(wanted))
