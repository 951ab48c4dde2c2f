"""The join of near duplicates over the pieces of a running clean: no process holds all signatures.

1. Every piece has the hashes of its documents' bands, sorted. A partition is a range of hashes: its task takes its
   slice of every piece, finds who shares a band, and compares the signatures of those, mapped from the pieces.
2. A task per piece writes the shingle sets of its documents that are in a pair left.
3. Tasks compare those sets pair by pair, exactly.
4. The driver gets the pairs that are near, finds their components, and chooses who stays.

How it grows, for N documents of b bands and m values, of which M are in P candidate pairs: on disk 4m + 12b bytes a
document (0.9 kB by default) and the distinct shingles of M documents, 8 bytes each; a partition task holds
_PARTITION_RECORDS hashes and the signatures of those that share one, at most 140 MB whatever N is; the number of
partitions grows with N, and each opens every piece, so the opened files grow with pieces times partitions: raise
`task_bytes` with the corpus. The driver holds 16 bytes a candidate pair, about 300 bytes for each of the M documents,
and nothing for the others.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.data.cleaning.deduplicate import (
    ALL_PAIRS_ROWS,
    Hashes,
    Rows,
    connected_components,
    estimate_bound,
    jaccard,
    near_pairs,
    preference,
    shingle_sets,
    staying,
)
from components.data.cleaning.work_pieces import (
    by_piece,
    gather_array,
    gather_table,
    number_of,
    piece_path,
    read_array,
    read_table,
    write_array,
)
from components.data.config import DuplicateConfig
from components.machine.cluster import run_tasks

# Hashes of one partition: 16 bytes each in memory, and up to 512 bytes where all of them share a band.
_PARTITION_RECORDS = 1 << 18
_PAIRS_PER_TASK = 20_000
_MEMBER_COLUMNS = ("id", "path", "licence", "source", "bytes")
_SETS, _OFFSETS, _ROWS = "shingles", "shingle_offsets", "shingle_rows"


Runner = Callable[..., Iterable[tuple[int, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What became of the documents that are near another: `members` has number, id, path, cluster (the smallest id
    that it is connected with) and kept_id (null for one that stays), sorted by number. Documents not in it stay."""

    members: pl.DataFrame
    candidate_pairs: int
    near_pairs: int

    def of_piece(self, piece: int) -> pl.DataFrame:
        """The members of one piece, with their row in it."""
        numbers = self.members["number"]
        start, stop = (int(numbers.search_sorted(number_of(each, 0))) for each in (piece, piece + 1))
        return self.members[start:stop].with_columns(row=pl.col("number") - number_of(piece, 0))


_MEMBERS_SCHEMA = pl.Schema(
    {"number": pl.Int64, "id": pl.String, "path": pl.String, "cluster": pl.String, "kept_id": pl.String}
)
NOBODY = Fate(members=pl.DataFrame(schema=_MEMBERS_SCHEMA), candidate_pairs=0, near_pairs=0)


def find_near_duplicates(
    folder: Path, pieces: int, records: int, config: DuplicateConfig, run: Runner = run_tasks
) -> Fate:
    """Join the first `pieces` pieces of a folder, which have `records` band hashes, on the Ray that is connected, or by
    another `run` than its tasks."""
    partitions = -(-records // _PARTITION_RECORDS)
    candidates = _gathered(run, partition_pairs, range(partitions), folder, pieces, partitions, config)
    pairs = np.unique(np.concatenate([np.zeros((0, 2), np.int64), *candidates]), axis=0)
    if not len(pairs):
        return NOBODY
    numbers = np.unique(pairs)
    members = pl.concat(_gathered(run, write_sets, list(by_piece(numbers)), folder, config))
    chunks = [pairs[start : start + _PAIRS_PER_TASK] for start in range(0, len(pairs), _PAIRS_PER_TASK)]
    near = pairs[np.concatenate(_gathered(run, compare_sets, chunks, folder, config))]
    inside = pl.Series(np.isin(numbers, near))
    return _fate(members.filter(inside), near, len(pairs), config)


def _gathered(run: Runner, task: Callable[..., Any], items: Sequence[Any], *shared: Any) -> list[Any]:
    """The results of tasks in the order of their items."""
    return [result for _, result in sorted(run(task, items, *shared), key=lambda each: each[0])]


def partition_pairs(
    partition: int, folder: Path, pieces: int, partitions: int, config: DuplicateConfig
) -> NDArray[np.int64]:
    """Candidate pairs (smaller number, larger number) of one range of band hashes, shape (P, 2)."""
    hashes, numbers = _shared_hashes(partition, folder, pieces, partitions)
    if not len(hashes):
        return np.zeros((0, 2), np.int64)
    members, rows = np.unique(numbers, return_inverse=True)
    _, sizes = np.unique(hashes, return_counts=True)
    rank = np.arange(len(members))
    if sizes.max() > ALL_PAIRS_ROWS:
        rank = preference(gather_table(folder, members, _MEMBER_COLUMNS), config)
    pairs = near_pairs(
        hashes,
        rows,
        gather_array(folder, members, "signatures"),
        rank,
        rows_per_band=config.rows_per_band,
        bound=estimate_bound(config.similarity, config.num_permutations),
    )
    candidates: NDArray[np.int64] = members[np.concatenate([np.zeros((0, 2), np.int64), *pairs])]
    return candidates


def _shared_hashes(partition: int, folder: Path, pieces: int, partitions: int) -> tuple[Hashes, Rows]:
    """Band hashes of one range that several documents have, sorted, and whose they are."""
    low, high = (np.uint64(min((1 << 64) - 1, (1 << 64) * each // partitions)) for each in (partition, partition + 1))
    hashes, numbers = [], []
    for piece in range(pieces):
        own = read_array(folder, piece, "bands")
        # the last range is closed: no hash lies beyond it
        stop = len(own) if partition == partitions - 1 else int(np.searchsorted(own, high))
        part = slice(int(np.searchsorted(own, low)), stop)
        hashes.append(np.array(own[part]))
        numbers.append(read_array(folder, piece, "band_rows")[part].astype(np.int64) + number_of(piece, 0))
    together = np.concatenate(hashes)
    order = np.argsort(together, kind="stable")  # equal hashes keep the order of their documents
    together = together[order]
    same = together[1:] == together[:-1]
    shared = np.concatenate([same, [False]]) | np.concatenate([[False], same])
    return together[shared], np.concatenate(numbers)[order][shared]


def write_sets(wanted: tuple[int, NDArray[np.int64]], folder: Path, config: DuplicateConfig) -> pl.DataFrame:
    """Write the shingle sets of some documents of a piece; their number and what else is known of them."""
    piece, rows = wanted
    documents = read_table(folder, piece, "documents", [*_MEMBER_COLUMNS, "text"])[rows]
    sets = shingle_sets(documents["text"].to_list(), config.shingle_tokens)
    place = piece_path(folder, piece)
    write_array(place / f"{_SETS}.npy", np.concatenate(sets))
    write_array(place / f"{_OFFSETS}.npy", np.cumsum([0, *map(len, sets)]))
    write_array(place / f"{_ROWS}.npy", rows)
    return documents.select(pl.Series("number", rows + number_of(piece, 0)), *_MEMBER_COLUMNS)


def compare_sets(pairs: NDArray[np.int64], folder: Path, config: DuplicateConfig) -> NDArray[np.bool_]:
    """Whether the documents of each pair are near: the exact Jaccard similarity of their sets, shape (P,)."""
    numbers = np.unique(pairs)
    sets: list[Hashes] = [each for piece, rows in by_piece(numbers) for each in _sets(folder, piece, rows)]
    places = np.searchsorted(numbers, pairs)
    similarities = [jaccard(sets[one], sets[two]) for one, two in places]
    return np.array(similarities) >= config.similarity


def _sets(folder: Path, piece: int, rows: NDArray[np.int64]) -> Iterator[Hashes]:
    """The sets of some documents of a piece, mapped."""
    sets, offsets = (read_array(folder, piece, name) for name in (_SETS, _OFFSETS))
    for place in np.searchsorted(read_array(folder, piece, _ROWS), rows):
        yield sets[offsets[place] : offsets[place + 1]]


def _fate(members: pl.DataFrame, near: NDArray[np.int64], candidates: int, config: DuplicateConfig) -> Fate:
    """Clusters, and who stays in whose place, from the pairs that are near and the documents in them."""
    if members.is_empty():
        return Fate(members=NOBODY.members, candidate_pairs=candidates, near_pairs=0)
    pairs = np.searchsorted(members["number"].to_numpy(), near)
    cluster = connected_components(pairs, members.height)
    kept = staying(pairs, preference(members, config))
    stays = pl.Series(kept == np.arange(members.height))
    fates = members.select(
        "number",
        "id",
        "path",
        members["id"].gather(cluster).alias("cluster"),
        members["id"].gather(kept).set(stays, None).alias("kept_id"),
    )
    return Fate(members=fates, candidate_pairs=candidates, near_pairs=len(near))
