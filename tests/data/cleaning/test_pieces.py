"""The cuts of a corpus against a plain walk over its rows; the folder of pieces, left in every state."""

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.errors import BusyError
from components.data.cleaning.work_pieces import (
    by_piece,
    number_of,
    piece_path,
    piece_record,
    plan,
    read_array,
    read_table,
    work_folder,
    write_array,
    write_piece,
)
from components.data.documents.document import ShardWriter, shard_cuts, stream_table


def write_rows(folder: Path, seed: int, rows: int) -> pl.DataFrame:
    """Two shards of row groups of 7, ids that repeat."""
    source = random.Random(seed)
    ids = sorted(f"{source.randrange(rows // 2):06}" for _ in range(rows))
    frame = pl.DataFrame({"id": ids, "bytes": [source.choice([1, 10, 300]) for _ in ids]})
    for number, part in enumerate((frame[: rows // 2], frame[rows // 2 :])):
        pq.write_table(part.to_arrow(), folder / f"part-{number:05}.parquet", row_group_size=7)
    return frame


@pytest.mark.parametrize("seed", range(5))
def test_pieces_are_cut_where_enough_is_together_and_the_id_changes(tmp_path: Path, seed: int) -> None:
    frame = write_rows(tmp_path, seed, 120)
    found = plan(tmp_path, 400, {})
    wanted, waiting = [], 0
    for row, (own, size) in enumerate(frame.iter_rows()):
        if waiting >= 400 and own != frame["id"][row - 1]:
            wanted.append(row)
            waiting = 0
        waiting += size
    sizes = [sum(rows.stop - rows.start for rows in piece.rows) for piece in found.pieces]
    assert np.cumsum(sizes).tolist() == [*wanted, frame.height]
    assert found.rows == frame.height and found.unreadable.is_empty()
    assert [piece.number for piece in found.pieces] == list(range(len(sizes))) and len(sizes) > 5
    shards = {str(path): pl.read_parquet(path) for path in tmp_path.glob("*.parquet")}
    read = pl.concat(
        shards[rows.path][7 * rows.group : 7 * rows.group + 7][rows.start : rows.stop]
        for piece in found.pieces
        for rows in piece.rows
    )
    assert read.equals(frame)


SIZES = st.lists(st.integers(1, 3_000_000), max_size=60)


@given(SIZES, st.integers(1, 5))
def test_shards_are_cut_alike_however_the_rows_arrive(sizes: list[int], runs: int) -> None:
    edges = np.linspace(0, len(sizes), runs + 1).astype(int)
    cut = shard_cuts([np.array(sizes[start:stop], np.int64) for start, stop in pairwise(edges)], 5_000_000)
    rows = [[row + int(edges[run]) for run, start, stop in shard for row in range(start, stop)] for shard in cut]
    assert [row for shard in rows for row in shard] == list(range(len(sizes)))
    for shard in rows:
        total = sum(sizes[row] for row in shard)
        assert total >= 5_000_000 or shard is rows[-1]
        assert total - sizes[shard[-1]] < 5_000_000


def test_a_writer_cuts_where_shard_cuts_says(tmp_path: Path) -> None:
    source = random.Random(2)
    sizes = [source.randrange(1, 400_000) for _ in range(200)]
    writer = ShardWriter(tmp_path, pl.Schema({"bytes": pl.Int64()}), 7_000_000)
    writer.write(pl.DataFrame({"bytes": sizes}))
    writer.close()
    shards = shard_cuts([np.array(sizes, np.int64)], 7_000_000)
    assert list(writer.rows.values()) == [sum(stop - start for _, start, stop in shard) for shard in shards]


def test_a_table_has_the_same_bytes_however_it_arrives(tmp_path: Path) -> None:
    frame = pl.DataFrame({"id": [f"{row:08}" for row in range(150_000)]})
    pieces = [frame[start : start + 9_999] for start in range(0, frame.height, 9_999)]
    assert stream_table(pieces, frame.schema, tmp_path / "pieces") == frame.height
    assert stream_table([frame], frame.schema, tmp_path / "whole") == frame.height
    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()
    assert pq.read_metadata(tmp_path / "whole").num_row_groups == 3
    assert stream_table([], frame.schema, tmp_path / "empty") == 0
    assert pl.read_parquet(tmp_path / "empty").schema == frame.schema


def test_a_piece_is_there_as_a_whole_or_not(tmp_path: Path) -> None:
    table, array = pl.DataFrame({"a": [1, 2]}), np.arange(6, dtype=np.uint32).reshape(2, 3)
    record = write_piece(tmp_path, 7, {"table": table}, {"array": array}, rows=2)
    assert piece_record(tmp_path, 7) == record and record["rows"] == 2
    again = write_piece(tmp_path, 7, {"table": table[:1]}, {}, rows=1)
    assert again["rows"] == 1 and read_table(tmp_path, 7, "table").equals(table)  # the first one stands
    assert np.array_equal(read_array(tmp_path, 7, "array"), array)
    assert not list(tmp_path.glob(".*"))
    (piece_path(tmp_path, 7) / "array.npy").write_bytes(b"cut")
    assert piece_record(tmp_path, 7) is None
    assert not piece_path(tmp_path, 7).exists() and piece_record(tmp_path, 8) is None


def test_arrays_are_what_numpy_would_save(tmp_path: Path) -> None:
    for number, array in enumerate((np.zeros((0, 3), np.uint32), np.arange(5), np.arange(12).reshape(3, 4)[:, ::2])):
        write_array(tmp_path / f"{number}.npy", array)
        assert np.array_equal(np.load(tmp_path / f"{number}.npy"), array)


def test_numbers_fall_into_their_pieces() -> None:
    numbers = np.array([number_of(piece, row) for piece, row in [(0, 3), (0, 9), (2, 0), (70_000, 5)]])
    assert [(piece, rows.tolist()) for piece, rows in by_piece(numbers)] == [(0, [3, 9]), (2, [0]), (70_000, [5])]
    assert not list(by_piece(np.zeros(0, np.int64)))


def test_one_process_has_a_key_and_clears_what_others_left(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), work_folder(tmp_path, "old") as old:
        (old / "piece").mkdir()
        raise KeyboardInterrupt
    assert old.exists()  # to go on from
    with work_folder(tmp_path, "other") as other, pytest.raises(BusyError, match="another process works on the same"):
        assert not old.exists()
        (other / "piece").mkdir()
        with work_folder(tmp_path, "other"):
            pass
    assert not list(tmp_path.iterdir())


def test_the_folder_of_one_who_still_works_is_left_alone(tmp_path: Path) -> None:
    with work_folder(tmp_path, "mine") as mine, work_folder(tmp_path, "new"):
        assert mine.exists()
    assert not list(tmp_path.iterdir())
