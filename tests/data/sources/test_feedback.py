"""Accepted completions become documents in their context; everything else is left, with the reason."""

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core.errors import DataError
from components.data.config import IngestConfig
from components.data.documents.feedback_rows import SCHEMA
from components.data.ingest import run
from components.data.sources import feedback
from components.data.sources.config import FeedbackSource
from tests.data.conftest import read_parts

MODEL = "ab" * 32


def event(number: int, **columns: Any) -> dict[str, Any]:
    return {
        "event_id": f"event-{number:04}",
        "kind": "accept",
        "request_id": f"request-{number}",
        "model_digest": MODEL,
        "user": "u1",
        "at": 1_750_000_000.0 + number,
        "prompt": f"def f{number}():\n    ",
        "completion": f"return {number}\n",
    } | columns


def write(folder: Path, *files: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(files):
        pl.DataFrame(rows, schema=SCHEMA).write_parquet(folder / f"events-{number}.parquet")


def read(folder: Path, **parameters: Any) -> tuple[pl.DataFrame, dict[str, str]]:
    batches = list(feedback.read(FeedbackSource(path=str(folder), **parameters)))
    left = pl.concat([batch.left for batch in batches])
    return pl.concat([batch.documents for batch in batches]), dict(left.select("path", "reason").iter_rows())


def test_accepted_completions_are_documents_in_their_context(tmp_path: Path) -> None:
    write(tmp_path / "f", [event(0), event(1, kind="reject")], [event(2, user="u2")])
    found, left = read(tmp_path / "f")
    assert found.select("text", "path", "author", "version", "language").rows() == [
        ("def f0():\n    return 0\n", "request-0", "u1", MODEL, "python"),
        ("def f2():\n    return 2\n", "request-2", "u2", MODEL, "python"),
    ]
    assert left == {"request-1": "rejected"}


def test_a_request_counts_once_by_the_last_word_on_it(tmp_path: Path) -> None:
    """Across files, and when two users answer for one request."""
    later = [
        event(5, request_id="request-0", kind="reject"),
        event(6, request_id="request-1", completion="return 7\n"),
        event(7, request_id="request-2", user="u2", completion="return 8\n"),
    ]
    write(tmp_path / "f", [event(0), event(1), event(2)], later)
    batches = list(feedback.read(FeedbackSource(path=str(tmp_path / "f"))))
    texts = {text for batch in batches for text in batch.documents["text"]}
    assert texts == {"def f6():\n    return 7\n", "def f7():\n    return 8\n"}
    reasons = sorted(reason for batch in batches for reason in batch.left["reason"])
    assert reasons == ["event_repeated", "event_repeated", "rejected", "request_repeated"]


def test_a_user_counts_up_to_a_number(tmp_path: Path) -> None:
    write(tmp_path / "f", [event(n) for n in range(30)] + [event(99, user="u2")])
    found, left = read(tmp_path / "f", max_events_per_user=10)
    assert found["author"].value_counts().sort("author").rows() == [("u1", 10), ("u2", 1)]
    assert set(found.filter(pl.col("author") == "u1")["path"]) == {f"request-{n}" for n in range(20, 30)}
    assert set(left.values()) == {"user_over_cap"} and len(left) == 20


def test_events_that_break_the_contract_are_left_with_its_rule(tmp_path: Path) -> None:
    broken = [
        event(0, model_digest="forged"),
        event(1, at=None),
        event(2, completion="  "),
        event(3, kind="maybe"),
        event(4, request_id=None),
        event(5),
    ]
    write(tmp_path / "f", broken)
    found, left = read(tmp_path / "f")
    assert found["path"].to_list() == ["request-5"]
    assert left == {
        "request-0": "model_malformed",
        "request-1": "time_missing",
        "request-2": "completion_empty",
        "request-3": "kind_unknown",
        "unknown": "request_missing",
    }


def test_the_default_place_is_the_state_directory(state: Path, tmp_path: Path) -> None:
    write(state / "feedback", [event(0)])
    run(IngestConfig(sources=(FeedbackSource(),)), out=tmp_path / "raw")
    assert read_parts(tmp_path / "raw")["source"].to_list() == ["feedback"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "found no Parquet file of events; correct ingest.sources, or collect feedback first"),
        (b"junk", "cannot be read as events"),
        (pa.table({"prompt": ["x"]}), "lacks event_id, kind, .*; needed the columns"),
        (pa.table({"u": pa.array([b"a" * 16], pa.uuid())}), "holds the Arrow extension type arrow.uuid"),
    ],
)
def test_what_holds_no_events_is_one_line(tmp_path: Path, content: Any, message: str) -> None:
    (tmp_path / "f").mkdir()
    if isinstance(content, bytes):
        (tmp_path / "f" / "a.parquet").write_bytes(content)
    elif content is not None:
        pq.write_table(content, tmp_path / "f" / "a.parquet")
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path / "f")
    assert "\n" not in str(error.value)
