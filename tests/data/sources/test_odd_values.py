"""No value of any row ends a source: each row is a document or is left with its reason, and good rows enter."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.data.clean import judge
from components.data.cleaning.decontaminate import read_items
from components.data.config import CheckRawConfig, CleanConfig, IngestConfig
from components.data.contracts.measures import document_statistics
from components.data.contracts.rules import violations
from components.data.documents.feedback_rows import SCHEMA
from components.data.ingest import run
from components.data.intake.admission import admit, shown_detail, shown_path
from components.data.sources import feedback, huggingface, jsonl, parquet
from components.data.sources.config import FeedbackSource, HuggingFaceSource, JsonlSource, ParquetSource
from components.data.sources.reading.document_batch import BATCH_SCHEMA, LEFT_SCHEMA, Batch
from tests.data.conftest import read_parts
from tests.data.sources.odd_rows import GOOD, LINES, NUM_ROWS, SHAPES, columns
from tests.data.sources.test_feedback import event

# Many more by hand: OVERNIGHT_TEST_EXAMPLES=5000.
MANY = settings(
    max_examples=int(os.environ.get("OVERNIGHT_TEST_EXAMPLES", "40")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
SHAPE = st.sampled_from(sorted(SHAPES))


def judged(batches: Iterator[Batch]) -> tuple[list[str | None], pl.DataFrame]:
    """The texts and what is left, once both are what every source promises and admission has judged them."""
    found = [Batch(), *batches]
    assert all(each.documents.schema == BATCH_SCHEMA and each.left.schema == LEFT_SCHEMA for each in found)
    documents, left = pl.concat(each.documents for each in found), pl.concat(each.left for each in found)
    enter, refused = admit(documents, max_document_bytes=10_000, licences=("MIT",), entries=())
    assert enter.height + refused.height == documents.height
    left = left.select(shown_path(), "reason", shown_detail())
    assert not left["reason"].is_null().any() and (left["detail"].str.len_chars() <= 200).all()
    assert not left["detail"].str.contains("[\x00-\x1f]|Error|Exception").any(), left
    return documents["text"].to_list(), left


@MANY
@given(st.lists(LINES, min_size=4, max_size=12), SHAPE)
def test_no_line_of_json_ends_a_source(lines: list[bytes], shape: str) -> None:
    good = json.dumps({SHAPES[shape]: GOOD}).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_bytes(b"\n".join([good, *lines, good]))
        texts, left = judged(jsonl.read(JsonlSource(paths=(str(path),), shape=shape)))
    assert texts.count(GOOD) == 2 and texts[0] == texts[-1] == GOOD
    assert len(texts) + left.height == len(lines) + 2


@MANY
@given(columns(), SHAPE)
def test_no_column_of_parquet_ends_a_source(table: dict[str, pa.Array], shape: str) -> None:
    if (texts := table.get(SHAPES[shape])) is not None and pa.types.is_string(texts.type):
        table[SHAPES[shape]] = pa.array([GOOD, *texts.to_pylist()[1:]])
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(pa.table(table), Path(folder) / "a.parquet")
        found, left = judged(parquet.read(ParquetSource(paths=(folder,), shape=shape)))
    if left["path"].to_list() == ["a.parquet"]:  # no column of it can be the text
        assert not found and left["reason"][0] in ("no_column", "wrong_type")
    else:
        assert len(found) + left.height == NUM_ROWS
        assert not left["reason"].is_in(["corrupt_file", "corrupt_row_group"]).any(), left


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the library makes of a folder of JSON lines."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "train.jsonl").write_text('{"text": "x"}\n')
    return huggingface._open(HuggingFaceSource(dataset=str(folder)), str(folder / "cache"))


@MANY
@given(lines=st.lists(LINES, min_size=4, max_size=12), shape=SHAPE)
def test_no_row_of_a_data_set_ends_a_source(builder: Any, lines: list[bytes], shape: str) -> None:
    good = json.dumps({SHAPES[shape]: GOOD}).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.jsonl"
        path.write_bytes(b"\n".join([good, *lines, good]))
        file = huggingface._DataFile(address=str(path), origin=(), path="train.jsonl")
        texts, left = judged(huggingface._read_file(builder, file, HuggingFaceSource(dataset=folder, shape=shape)))
    assert texts.count(GOOD) == 2 and len(texts) + left.height == len(lines) + 2


@MANY
@given(columns(tuple(SCHEMA)))
def test_no_event_of_feedback_ends_a_source(table: dict[str, pa.Array]) -> None:
    events = pl.DataFrame([event(number) for number in range(NUM_ROWS)], schema=SCHEMA).to_arrow()
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(events.slice(0, 1), Path(folder) / "a.parquet")
        pq.write_table(pa.table(dict(zip(SCHEMA, events.columns, strict=True)) | table), Path(folder) / "b.parquet")
        texts, left = judged(feedback.read(FeedbackSource(path=folder)))
    assert len(texts) + left.height == 1 + NUM_ROWS


@pytest.mark.parametrize(
    "answers",
    ["text", 5, [1, 2], 10**30, [10**30], {"text": "x"}, [["a"]], ["a"], [{"text": 1}], [{"pm_score": "x"}], True],
)
@pytest.mark.parametrize("kind", ["jsonl", "parquet", "huggingface"])
def test_answers_that_are_none_leave_their_row_alone(tmp_path: Path, kind: str, answers: Any) -> None:
    rows = [{"question": f"q{number}", "answers": [{"text": "a"}], "license": "MIT"} for number in range(3)]
    rows[1]["answers"] = answers
    if kind != "parquet":
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    elif answers not in (10**30, [10**30]):  # Parquet has no such number
        pq.write_table(pa.table({name: [rows[0][name]] for name in rows[0]}), tmp_path / "a.parquet")
        pq.write_table(pa.table({name: [rows[1][name]] for name in rows[1]}), tmp_path / "rows.parquet")
        pq.write_table(pa.table({name: [rows[2][name]] for name in rows[2]}), tmp_path / "z.parquet")
    else:
        return
    source: Any
    if kind == "huggingface":
        source = HuggingFaceSource(dataset=str(tmp_path), shape="stackexchange")
    else:
        source = {"jsonl": JsonlSource, "parquet": ParquetSource}[kind](paths=(str(tmp_path),), shape="stackexchange")
    run(IngestConfig(sources=(source,)), out=tmp_path / "raw")
    assert sorted(read_parts(tmp_path / "raw")["text"]) == ["q0\n\na", "q2\n\na"]
    path, reason, detail = pl.read_parquet(tmp_path / "raw" / "left.parquet").row(0)[1:]
    assert reason == "wrong_type" and path.startswith("rows.") and ", needed " in detail


def test_a_value_means_the_same_in_every_table(tmp_path: Path) -> None:
    """And an author in a list may opt out as one alone may."""
    row = {
        "text": "x",
        "author": ["Bo", None, "Al"],
        "licence": ["MIT", "ISC"],
        "version": 3,
        "package": True,
        "path": "",
    }
    (tmp_path / "t.jsonl").write_text(json.dumps(row | {"text": "x"}))
    pl.DataFrame([row]).write_parquet(tmp_path / "t.parquet")
    for read, source in ((jsonl.read, JsonlSource), (parquet.read, ParquetSource)):
        (batch,) = read(source(paths=(str(tmp_path),)))
        assert batch.documents.select(pl.exclude("path", "language")).row(0) == (
            "x",
            "true",
            "3",
            "ISC AND MIT",
            "Al, Bo",
        )
        assert batch.documents["path"][0].startswith("t.")


def test_odd_documents_end_no_later_stage(tmp_path: Path) -> None:
    labels = ["a\\b\\c.py", "x" * 5_000, "\u202e.py", "é" * 300 + ".js", "a\nb.py", ".", "..", "/", "C:\\x.py", ""]
    rows = [
        {
            "text": f"x = {number}\n" * 9,
            "path": label,
            "package": label,
            "version": label,
            "language": label,
            "author": label,
        }
        for number, label in enumerate(labels)
    ]
    texts = ["\ufeffx = 1\n" * 9, "\0" * 99, "(" * 9_000, "a" * 90_000, "\u2028" * 99, "\u0085x = 1\n" * 9]
    rows += [{"text": text, "language": "python"} for text in texts]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run(IngestConfig(sources=(JsonlSource(paths=(str(tmp_path),), licence="MIT"),)), out=tmp_path / "raw")
    found = read_parts(tmp_path / "raw")
    config = CleanConfig.model_validate({})
    assert document_statistics(found, ("MIT",)).height == found.height
    violations(document_statistics(found, ("MIT",)), "raw", CheckRawConfig.model_validate({}))
    assert judge(found, config, read_items(config.decontaminate)).height == found.height
    left = pl.read_parquet(tmp_path / "raw" / "left.parquet")
    assert found.height + left.height == len(rows)
    assert dict(left["reason"].value_counts().iter_rows()) == {"unsafe_path": 4, "empty": 1}
