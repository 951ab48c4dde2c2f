"""Edits as instructions, against a small artifact of them."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import polars as pl
import pytest

from components.alignment.config import CorpusConfig
from components.alignment.examples.edits import ASK_EDIT, edits
from components.alignment.examples.functions import extract, use_of
from components.alignment.instructions import corpus
from components.data.documents.document import SCHEMA, document_id
from components.data.documents.edit import EDITS, Edit, text_of

Writer = Callable[[Path, str, dict[str, bytes]], Path]
FUNCTION = 'def f(a):\n    """Return {}."""\n    return a'


def parquet(frame: pl.DataFrame) -> bytes:
    target = BytesIO()
    frame.write_parquet(target)
    return target.getvalue()


@pytest.fixture
def write(tmp_path: Path, artifact_writer: Writer) -> Callable[..., tuple[Path, Path]]:
    """An artifact with edits (path, edit) and one of token files with the documents of the training split."""

    def made(rows: list[tuple[str, Edit]], trained: list[tuple[str, str]]) -> tuple[Path, Path]:
        texts = [text_of(edit) for _, edit in rows]
        table = pl.DataFrame(
            {"id": map(document_id, texts), "text": texts, "path": [path for path, _ in rows], "source": "git"}
        ).with_columns(
            package=pl.lit("p"), version=pl.lit("1"), licence=pl.lit("MIT"), language=pl.lit("python"), bytes=pl.lit(1)
        )
        ids = [f"id of {path}" for path, _ in trained]
        files = pl.DataFrame(
            {"id": ids, "path": [path for path, _ in trained], "source": [source for _, source in trained]}
        )
        nothing = pl.DataFrame(schema=SCHEMA)
        source = {EDITS: parquet(table.select(SCHEMA.names())), "part-00000.parquet": parquet(nothing)}
        return (
            artifact_writer(tmp_path, "source", source),
            artifact_writer(tmp_path, "tokens", {"train.documents.parquet": parquet(files)}),
        )

    return made


def edit(number: int, after: str = "") -> Edit:
    return Edit(
        subject=f"Return {number}", before="def f():\n    return 0", after=after or f"def f():\n    return {number}"
    )


def test_an_edit_is_learned_where_its_file_is_a_document_of_the_training_split(
    write: Callable[..., tuple[Path, Path]],
) -> None:
    rows = [("a.py", edit(1)), ("held_out.py", edit(2)), ("b.py", edit(3))]
    source, tokens = write(rows, [("a.py", "git"), ("b.py", "another source")])
    (only,) = edits(source, tokens)
    assert only.prompt == f"{ASK_EDIT}Return 1\n\ndef f():\n    return 0"
    assert (only.answer, only.name, only.document) == ("def f():\n    return 1", "f", "id of a.py")
    assert (only.kind, only.use, only.source) == ("edit", "tuning", "corpus")


@pytest.mark.parametrize(
    "after", ["def f():\n    return <KEY_1>", "def f():\n    return 0", "def f():\n    return", "x = 1"]
)
def test_what_redaction_broke_or_made_equal_is_none(after: str, write: Callable[..., tuple[Path, Path]]) -> None:
    source, tokens = write([("a.py", edit(1, after))], [("a.py", "git")])
    assert list(edits(source, tokens)) == []


def test_no_version_of_a_function_with_another_use_is_shown(write: Callable[..., tuple[Path, Path]]) -> None:
    named = {use: next(text for text in _functions() if _use(text) == use) for use in ("tuning", "heldout", "pairs")}
    rows = []
    for text in named.values():
        rows += [
            ("a.py", Edit(subject="Say more of it", before="def f(a):\n    return a", after=text)),
            ("a.py", Edit(subject="Say less of it", before=text, after="def f(a):\n    return a")),
        ]
    source, tokens = write(rows, [("a.py", "git")])
    found = list(edits(source, tokens))
    assert len(found) == 2 and all(named["tuning"] in each.prompt + each.answer for each in found)


def _functions() -> list[str]:
    return [FUNCTION.format(number) for number in range(200)]


def _use(text: str) -> str:
    (only,) = extract(text, "")
    return use_of(only.prompt, runnable=False)


def test_so_many_and_so_long_ones_are_taken_as_the_parameters_say(write: Callable[..., tuple[Path, Path]]) -> None:
    rows = [("a.py", edit(number)) for number in range(1, 9)]
    long = ("a.py", edit(10, "def f():\n    return " + "1 + " * 200 + "1"))
    source, tokens = write([*rows, long], [("a.py", "git")])
    config = CorpusConfig(functions=0, heldout=0, pairs=0, edits=5)
    found = list(corpus(config, source, tokens, seed=0))
    assert len(found) == 5 and found == list(corpus(config, source, tokens, seed=0))
    everything = list(corpus(config.model_copy(update={"edits": 100}), source, tokens, seed=0))
    assert len(everything) == 8 and everything[:5] == found
    assert list(corpus(config.model_copy(update={"edits": 0}), source, tokens, seed=0)) == []
