"""Filter, redact and deduplicate documents, on Ray, in memory that does not grow with the corpus.

Reads   data/checked
Writes  part-*.parquet: the columns of raw with redacted text (id stays the sha256 of the original), and cluster, the
        smallest id among its near duplicates, and redactions, their count; sorted by id.
        drops.parquet: id, path, reason, detail for every row that did not stay, sorted by id and path.
        redactions.parquet: id, kind, start, end (characters of the original text), placeholder.
        contaminated.parquet: id, path, suite, task_id, overlap for every evaluation item that a dropped document holds.
        edits.parquet: the edits of the input that hold no evaluation item, redacted as documents are.
Covers: exact duplicates, the filters of filters.py, the private data of private_data.py, near duplicates; rows that
cannot be decoded, which become drops; workers that are killed, and a driver that is: the next run goes on from the
pieces that were judged, with the same bytes.
Not covered: a corpus whose ids are not in order.

Tasks judge pieces of the input (pieces.py), join the near duplicates among them (near_duplicates.py) and write the
shards. Between them lie files, not objects: the driver sees counts, pairs of near duplicates and drops go by, and the
object store nothing of weight. A worker needs 250 MB and about five times `task_bytes`. The disk needs, in the state
directory and until the end, the text once more (compressed by half) and 0.9 kB a document.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from components.core import artifact
from components.core.artifact import Draft, Manifest
from components.core.config import digest_of, read_settings
from components.core.events import Events
from components.core.graph.closure import code_digest, lock_digest
from components.core.step import main
from components.data.cleaning.decontaminate import (
    CONTAMINATED_SCHEMA,
    Items,
    listed,
    mark,
    read_items,
    suite_statistics,
)
from components.data.cleaning.deduplicate import band_hashes, candidate_probability, preference, signatures
from components.data.cleaning.filters import apply_filters, refused_by_path
from components.data.cleaning.near_duplicates import NOBODY, Fate, find_near_duplicates
from components.data.cleaning.redact import find_all, replace
from components.data.cleaning.work_pieces import (
    DROPS_SCHEMA,
    Piece,
    Plan,
    piece_record,
    plan,
    read_array,
    read_piece,
    read_table,
    work_folder,
    write_piece,
)
from components.data.config import CleanConfig, DuplicateConfig
from components.data.documents.document import SCHEMA, ShardWriter, concat, shard_cuts, stream_table, write_table
from components.data.documents.edit import EDITS, read_edits
from components.machine.cluster import connect, run_tasks

CLEAN_SCHEMA = pl.Schema([*SCHEMA.items(), ("cluster", pl.String()), ("redactions", pl.Int32())])
_SPAN = pl.Struct({"kind": pl.String, "start": pl.Int64, "end": pl.Int64, "placeholder": pl.String})
REDACTIONS_SCHEMA = pl.Schema([("id", pl.String()), *((field.name, field.dtype) for field in _SPAN.fields)])
# Similarities whose chance of being looked at is stated in the statistics.
_S_CURVE = (0.5, 0.6, 0.7, 0.75, 0.8, 0.9)


def judge(documents: pl.DataFrame, config: CleanConfig, items: Items) -> pl.DataFrame:
    """The documents with reason and detail, null when they stay, and with redacted text and its spans. No I/O.

    A step sets reason and detail, or changes the text, of those that the steps before it let stay. Rows keep their
    order.
    """
    judged = apply_filters(documents, config.filters)
    judged = mark(judged, items, config.decontaminate.min_share)
    return redacted(judged, config)


def redacted(judged: pl.DataFrame, config: CleanConfig) -> pl.DataFrame:
    """Placeholders in the texts that stay, and spans, the list of what went; bytes are those of the new text."""
    candidates = judged["text"].set(judged["reason"].is_not_null(), "")
    texts: list[str | None] = judged["text"].to_list()
    spans: list[list[dict[str, Any]]] = [[] for _ in texts]
    for row, redactions in find_all(candidates, config.redact):
        texts[row] = replace(candidates[row], redactions)
        spans[row] = [{name: getattr(each, name) for name in REDACTIONS_SCHEMA.names()[1:]} for each in redactions]
    return judged.with_columns(
        pl.Series("text", texts, dtype=pl.String), pl.Series("spans", spans, dtype=pl.List(_SPAN))
    ).with_columns(bytes=pl.col("text").str.len_bytes().cast(pl.Int64))


def clean_edits(edits: pl.DataFrame, config: CleanConfig, items: Items) -> pl.DataFrame:
    """Edits (SCHEMA) without those that hold an evaluation item, redacted; a value has one placeholder in an edit."""
    undecided = edits.with_columns(reason=pl.lit(None, pl.String), detail=pl.lit(None, pl.String))
    judged = redacted(mark(undecided, items, config.decontaminate.min_share), config)
    return judged.filter(pl.col("reason").is_null()).select(SCHEMA.names())


def distinct(index: pl.DataFrame, config: CleanConfig) -> tuple[pl.Series, pl.DataFrame]:
    """Which of some rows (id, path, licence, source, bytes) are judged further, and the others as drops.

    Of the rows with one id one stays, whose path is the detail of the drops of the others. Rows that the filters refuse
    for their path are judged further too: none of them may take the place of a copy that would stay.
    """
    refused = refused_by_path(index, config.filters)
    best = index.with_columns(pl.Series("rank", preference(index, config.duplicates))).with_row_index("row")
    best = best.select("id", "row", pl.col("path").alias("detail"), "rank").filter(~refused)
    best = best.sort("rank").unique("id", keep="first")
    stays = pl.int_range(index.height, eager=True).is_in(best["row"].implode()) | refused
    drops = index.filter(~stays).join(best, on="id", maintain_order="left")
    return stays, drops.select("id", "path", pl.lit("exact_duplicate").alias("reason"), "detail")


def judge_piece(piece: Piece, folder: Path, config: CleanConfig, items: Items) -> dict[str, Any]:
    """One Ray task: read a piece, judge its documents and write the outcome; returns its record."""
    readable, index, drops = [], [], []
    for rows, documents, unreadable in read_piece(piece):
        drops.append(unreadable)
        if documents is not None:
            readable.append(rows)
            index.append(documents.drop("text"))
    stays, copies = distinct(concat(index, _INDEX_SCHEMA), config)
    drops.append(copies)
    judged = []
    for _, documents, _ in read_piece(Piece(number=piece.number, rows=tuple(readable))):
        assert documents is not None
        own, stays = stays[: documents.height], stays[documents.height :]
        judged.append(judge(documents.cast(SCHEMA).filter(own), config, items))
    documents = pl.concat(judged) if judged else judge(pl.DataFrame(schema=SCHEMA), config, items)
    drops.append(documents.filter(pl.col("reason").is_not_null()).select(DROPS_SCHEMA.names()))
    kept = documents.filter(pl.col("reason").is_null()).with_columns(
        redactions=pl.col("spans").list.len().cast(pl.Int32)
    )
    tables = {
        "drops": concat(drops, DROPS_SCHEMA),
        "contaminated": listed(documents),
        "redactions": kept.select("id", "spans").with_row_index("row").explode("spans").drop_nulls().unnest("spans"),
    }
    rows_in = sum(rows.stop - rows.start for rows in piece.rows)
    return write_judged(folder, piece.number, kept, config.duplicates, tables, rows=rows_in)


def write_judged(
    folder: Path,
    number: int,
    documents: pl.DataFrame,
    config: DuplicateConfig,
    tables: Mapping[str, pl.DataFrame] | None = None,
    **counts: int,
) -> dict[str, Any]:
    """Write a piece: the documents that stay (SCHEMA and redactions), what the join needs of them, and more tables."""
    matrix = signatures(
        documents["text"].to_list(),
        shingle_tokens=config.shingle_tokens,
        num_permutations=config.num_permutations,
        seed=config.seed,
    )
    hashes, rows = band_hashes(matrix, config.rows_per_band)
    kept = documents.select(*SCHEMA.names(), "redactions")
    arrays = {
        "bytes": kept["bytes"].to_numpy(),
        "signatures": matrix,
        "bands": hashes,
        "band_rows": rows.astype("uint32"),
    }
    every = {"documents": kept, **(tables or {})}
    return write_piece(folder, number, every, arrays, documents=kept.height, records=len(hashes), **counts)


def write_shard(
    shard: tuple[int, Sequence[tuple[int, int, int]]], folder: Path, out: Path, fate: Fate, shard_bytes: int
) -> tuple[dict[str, int], int]:
    """One Ray task: write a shard from (piece, start, stop) of the documents that stay; its rows by file, its bytes."""
    number, cuts = shard
    writer = ShardWriter(out, CLEAN_SCHEMA, shard_bytes, first=number)
    read: tuple[int, pl.DataFrame] | None = None
    for piece, start, stop in cuts:
        if read is None or read[0] != piece:
            read = piece, staying_documents(folder, piece, fate)
        writer.write(read[1][start:stop])
    writer.close()
    assert list(writer.rows) == [f"part-{number:05}.parquet"], f"shard {number} was cut otherwise: {writer.rows}"
    return writer.rows, writer.total_bytes


def staying_documents(folder: Path, piece: int, fate: Fate) -> pl.DataFrame:
    """The documents of a piece that stay (CLEAN_SCHEMA), in their order."""
    members = fate.of_piece(piece).select("row", "cluster", "kept_id")
    return (
        read_table(folder, piece, "documents")
        .with_row_index("row")
        .cast({"row": pl.Int64})
        .join(members, on="row", how="left", maintain_order="left")
        .filter(pl.col("kept_id").is_null())
        .with_columns(cluster=pl.coalesce("cluster", "id"))
        .select(CLEAN_SCHEMA.names())
    )


def run(config: CleanConfig, *, source: Path, out: Path) -> Manifest:
    """Write data/clean."""
    events = Events("clean")
    inputs = [artifact.read(source)]
    items = read_items(config.decontaminate)
    cut = plan(source, config.task_bytes, {file.path: file.rows or 0 for file in inputs[0].files})
    key = {"inputs": [each.digest for each in inputs], "config": config.digest, "lock": lock_digest()}
    key["code"] = code_digest(Path(__file__))
    key["suites"] = list(items.digests.values())
    work = read_settings().state.resolve() / "work" / "clean"
    started = time.monotonic()
    with (
        work_folder(work, digest_of(key)[:16]) as folder,
        artifact.create(out, stage="clean", config=config, inputs=inputs, code=Path(__file__)) as draft,
        connect(),
    ):
        events.metric("startup_seconds", time.monotonic() - started)
        records = _judge_all(cut, folder, config, items, events)
        fate = NOBODY
        if config.duplicates.near:
            total = sum(record["records"] for record in records)
            fate = find_near_duplicates(folder, len(records), total, config.duplicates)
        reasons: Counter[str] = Counter()
        kinds: Counter[str] = Counter()
        rows, kept_bytes = _write_shards(folder, len(records), fate, draft.path, config.shard_bytes)
        drops = _counted(_drops(folder, len(records), cut, fate), "reason", reasons)
        redactions = _counted(_redactions(folder, len(records), fate), "kind", kinds)
        contaminated = concat(
            (read_table(folder, piece, "contaminated") for piece in range(len(records))), CONTAMINATED_SCHEMA
        )
        draft.rows = {
            **rows,
            "contaminated.parquet": write_table(contaminated, draft.path / "contaminated.parquet"),
            "drops.parquet": stream_table(drops, DROPS_SCHEMA, draft.path / "drops.parquet"),
            "redactions.parquet": stream_table(redactions, REDACTIONS_SCHEMA, draft.path / "redactions.parquet"),
        }
        draft.statistics = {
            "documents": cut.rows,
            "kept": sum(rows.values()),
            "bytes": kept_bytes,
            "dropped_by_reason": dict(sorted(reasons.items())),
            "redactions_by_kind": dict(sorted(kinds.items())),
            **_near_statistics(fate, config.duplicates),
            "suites": suite_statistics(items, contaminated),
        }
        _write_edits(source, config, items, draft)
    events.metrics({"kept": draft.statistics["kept"], "bytes": kept_bytes})
    events.metrics({f"dropped/{reason}": count for reason, count in draft.statistics["dropped_by_reason"].items()})
    assert draft.manifest is not None
    return draft.manifest


def _write_edits(source: Path, config: CleanConfig, items: Items, draft: Draft) -> None:
    """Write the edits and how many stay, where the input has some."""
    if (edits := read_edits(source)) is not None:
        kept = clean_edits(edits, config, items)
        draft.rows[EDITS] = write_table(kept, draft.path / EDITS)
        draft.statistics["edits"] = {"number": edits.height, "kept": kept.height}


def _judge_all(cut: Plan, folder: Path, config: CleanConfig, items: Items, events: Events) -> list[dict[str, Any]]:
    """The records of all pieces, in their order; those that a killed run left are not judged again."""
    records = [piece_record(folder, piece.number) for piece in cut.pieces]
    todo = [piece for piece in cut.pieces if records[piece.number] is None]
    if len(todo) < len(cut.pieces):
        events.note(f"{len(cut.pieces) - len(todo)} of {len(cut.pieces)} pieces were judged before; going on")
    seen = cut.unreadable.height + sum(record["rows"] for record in records if record)
    for place, record in run_tasks(judge_piece, todo, folder, config, items):
        records[todo[place].number] = record
        seen += record["rows"]
        events.progress(seen, cut.rows, "documents")
    return [record for record in records if record]


def _write_shards(folder: Path, pieces: int, fate: Fate, out: Path, shard_bytes: int) -> tuple[dict[str, int], int]:
    """Write part-*.parquet; the rows of each, and the bytes of all. Of no documents, one empty shard."""

    def sizes() -> Iterator[Any]:
        for piece in range(pieces):
            gone = fate.of_piece(piece).drop_nulls("kept_id")["row"]
            size = pl.Series(read_array(folder, piece, "bytes"))
            yield size.filter(~pl.int_range(len(size), eager=True).is_in(gone.implode())).to_numpy()

    shards = list(enumerate(shard_cuts(sizes(), shard_bytes)))
    if not shards:
        return write_shard((0, ()), folder, out, fate, shard_bytes)
    rows: dict[str, int] = {}
    total = 0
    for _, (own, own_bytes) in run_tasks(write_shard, shards, folder, out.resolve(), fate, shard_bytes):
        rows |= own
        total += own_bytes
    return dict(sorted(rows.items())), total


def _drops(folder: Path, pieces: int, cut: Plan, fate: Fate) -> Iterator[pl.DataFrame]:
    """Every drop, by id and path; first those of which not even the id can be read."""
    yield cut.unreadable.sort("path")
    for piece in range(pieces):
        near = fate.of_piece(piece).drop_nulls("kept_id").with_columns(reason=pl.lit("near_duplicate"))
        near = near.select("id", "path", "reason", pl.col("kept_id").alias("detail"))
        yield pl.concat([read_table(folder, piece, "drops"), near]).sort("id", "path")


def _redactions(folder: Path, pieces: int, fate: Fate) -> Iterator[pl.DataFrame]:
    """What was redacted in the documents that stay, in their order."""
    for piece in range(pieces):
        gone = fate.of_piece(piece).drop_nulls("kept_id").select(pl.col("row").cast(pl.UInt32))
        yield read_table(folder, piece, "redactions").join(gone, on="row", how="anti", maintain_order="left")


def _counted(frames: Iterator[pl.DataFrame], column: str, counts: Counter[str]) -> Iterator[pl.DataFrame]:
    """The frames as they go by, their values of a column counted."""
    for frame in frames:
        counts.update(dict(frame[column].value_counts().iter_rows()))
        yield frame


def _near_statistics(fate: Fate, config: DuplicateConfig) -> dict[str, Any]:
    """The clusters of near duplicates, how they came about, and the S-curve of the parameters."""
    sizes = fate.members["cluster"].value_counts()["count"].to_list()
    curve = {
        str(each): candidate_probability(
            each, num_permutations=config.num_permutations, rows_per_band=config.rows_per_band
        )
        for each in _S_CURVE
    }
    return {
        "near_duplicate_clusters": len(sizes),
        "near_duplicates": {
            "candidate_pairs": fate.candidate_pairs,
            "near_pairs": fate.near_pairs,
            "documents_in_clusters": fate.members.height,
            "largest_cluster": max(sizes, default=0),
            "bands": config.num_permutations // config.rows_per_band,
            "rows_per_band": config.rows_per_band,
            "candidate_probability_by_similarity": {name: round(value, 6) for name, value in curve.items()},
        },
    }


_INDEX_SCHEMA = pl.Schema({name: kind for name, kind in SCHEMA.items() if name != "text"})


if __name__ == "__main__":
    main("clean", CleanConfig, run)
