"""What tokenize writes depends on the documents alone, not on how they arrive."""

import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import TempPathFactory

from components.tokens.shards.tables import TableWriter
from components.tokens.shards.writer import VALIDATION_SCHEMA, Output, with_ends

NUM_DOCUMENTS = 40


@given(st.lists(st.integers(0, NUM_DOCUMENTS), max_size=5).map(sorted), st.integers(1, 2 * NUM_DOCUMENTS))
@settings(max_examples=30, deadline=None)
def test_same_files_however_the_documents_arrive(
    tmp_path_factory: TempPathFactory, cuts: list[int], group_rows: int
) -> None:
    lengths = np.arange(NUM_DOCUMENTS) % 7
    tokens, with_end = with_ends(np.arange(lengths.sum(), dtype=np.uint32) + 16, lengths)
    stops = np.concatenate([[0], np.cumsum(with_end)])
    rows = pl.DataFrame({name: [f"{name} {row:02}" for row in range(NUM_DOCUMENTS)] for name in VALIDATION_SCHEMA})
    rows = rows.with_columns(bytes=pl.int_range(NUM_DOCUMENTS, dtype=pl.Int64), language=pl.lit(None, pl.String))
    documents = rows.with_columns(source=pl.lit("ours"), encoded_bytes="bytes")
    held_out = pl.Series([row % 3 == 0 for row in range(NUM_DOCUMENTS)])
    found = []
    for places in ([0, NUM_DOCUMENTS], [0, *cuts, NUM_DOCUMENTS]):
        out = tmp_path_factory.mktemp("output")
        with (
            Output(out, vocabulary_size=1000, shard_tokens=17) as output,
            TableWriter(out / "table.parquet", rows.schema, group_rows=group_rows) as table,
        ):
            for start, stop in itertools.pairwise(places):
                here = slice(start, stop)
                output.append(documents[here], tokens[stops[start] : stops[stop]], with_end[here], held_out[here])
                table.append(rows[here])
        found.append(({path.name: path.read_bytes() for path in out.iterdir()}, output.rows, output.statistics()))
        assert pl.read_parquet(out / "table.parquet").equals(rows)
        assert pq.ParquetFile(out / "table.parquet").num_row_groups == -(-NUM_DOCUMENTS // group_rows)
        assert pl.read_parquet(out / "validation.parquet").equals(rows.filter(held_out))
    assert found[0] == found[1]
    assert found[0][2]["bytes_per_token_by_language"] == {"unknown": round(sum(range(40)) / len(tokens), 6)}


def test_ends_stand_behind_each_document() -> None:
    tokens, lengths = with_ends(np.array([5, 6, 7], np.uint32), np.array([2, 0, 1]))
    assert tokens.tolist() == [5, 6, 0, 0, 7, 0] and lengths.tolist() == [3, 1, 2]


def test_an_empty_table_has_its_columns(tmp_path: Path) -> None:
    with TableWriter(tmp_path / "empty.parquet", VALIDATION_SCHEMA, group_rows=3):
        pass
    assert pl.read_parquet(tmp_path / "empty.parquet").schema == VALIDATION_SCHEMA
