"""Filter, redact and deduplicate documents, on Ray Data.

Reads   data/checked
Writes  part-*.parquet: the columns of raw with redacted text (id stays the sha256 of the original), and cluster, the
        smallest id among its near duplicates, and redactions, their count; sorted by id.
        drops.parquet: id, path, reason, detail for every row that did not stay.
        redactions.parquet: id, kind, start, end (characters of the original text), placeholder.
Covers: exact duplicates, the filters of filters.py, the private data of private_data.py, near duplicates.
Not covered: decontamination against evaluation sets.

Workers judge documents; only signatures and reasons come together in the driver, which puts all in the order of ids,
so the result is the same at any number of workers.
"""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from numpy.typing import NDArray

from components.core import artifact
from components.core.artifact import Manifest
from components.core.cluster import connect
from components.core.events import Events
from components.core.step import main
from components.data.config import CleanConfig
from components.data.deduplicate import Signatures, first_occurrences, near_duplicates, signatures
from components.data.documents import SCHEMA, ShardWriter, concat, cut, row_groups, write_table
from components.data.filters import apply_filters
from components.data.redact import find_all, replace

CLEAN_SCHEMA = pl.Schema([*SCHEMA.items(), ("cluster", pl.String()), ("redactions", pl.Int32())])
DROPS_SCHEMA = pl.Schema({"id": pl.String, "path": pl.String, "reason": pl.String, "detail": pl.String})
_SPAN = pl.Struct({"kind": pl.String, "start": pl.Int64, "end": pl.Int64, "placeholder": pl.String})
REDACTIONS_SCHEMA = pl.Schema([("id", pl.String()), *((field.name, field.dtype) for field in _SPAN.fields)])
_JUDGED_SCHEMA = pl.Schema([*DROPS_SCHEMA.items(), ("bytes", pl.Int64()), ("signature", pl.Binary())])
_STAGING = ".staging"


def judge(frame: pl.DataFrame, config: CleanConfig) -> pl.DataFrame:
    """Documents with reason and detail (null when they stay), spans of private data, and their signature. No I/O.

    The text of a document that stays is redacted; that of a dropped one becomes null. Rows keep their order.
    """
    judged = apply_filters(frame, config.filters)
    stays = judged["reason"].is_null()
    texts: list[str | None] = judged["text"].set(~stays, None).to_list()
    spans: list[list[dict[str, Any]]] = [[] for _ in texts]
    for row, found in find_all(judged["text"].set(~stays, ""), config.redact):
        texts[row] = replace(judged["text"][row], found)
        spans[row] = [{name: getattr(each, name) for name in REDACTIONS_SCHEMA.names()[1:]} for each in found]
    matrix = signatures(
        [text or "" for text in texts],
        shingle_tokens=config.duplicates.shingle_tokens,
        num_permutations=config.duplicates.num_permutations,
        seed=config.duplicates.seed,
    )
    return judged.with_columns(
        pl.Series("text", texts, dtype=pl.String),
        pl.Series("spans", spans, dtype=pl.List(_SPAN)),
        pl.Series("signature", [row.tobytes() for row in matrix], dtype=pl.Binary),
    ).with_columns(bytes=pl.col("text").str.len_bytes().cast(pl.Int64))


def judge_task(task: dict[str, NDArray[Any]], config: CleanConfig) -> pa.Table:
    """One Ray task: read some rows of a row group, and judge them. Never fails for what a document holds."""
    table = pq.ParquetFile(task["path"][0]).read_row_group(int(task["group"][0])).take(task["rows"][0])
    frame = pl.DataFrame(pl.from_arrow(table))
    return judge(frame, config).to_arrow(compat_level=pl.CompatLevel.oldest())


def plan_tasks(source: Path, task_bytes: int) -> tuple[list[dict[str, Any]], pl.DataFrame, int]:
    """Tasks of about `task_bytes` of text, in the order of the rows; exact duplicates as drops; the number of rows.

    Rows are sorted by id and path, so of equal texts the one with the smallest path stays.
    """
    index = pl.concat(
        rows.with_columns(
            pl.lit(str(path.resolve())).alias("file"), pl.lit(group).alias("group"), pl.int_range(pl.len()).alias("row")
        )
        for path, group, rows in row_groups(source, ["id", "path", "bytes"])
    )
    first = first_occurrences(index["id"])
    tasks: list[dict[str, Any]] = []
    for (file, group), rows in index.filter(first).group_by("file", "group", maintain_order=True):
        for piece in cut(rows["bytes"], task_bytes):
            tasks.append({"path": file, "group": group, "rows": rows["row"][piece].to_list()})
    kept = index.filter(first).select("id", pl.col("path").alias("detail"))
    drops = (
        index.filter(~first)
        .join(kept, on="id", maintain_order="left")
        .select("id", "path", pl.lit("exact_duplicate").alias("reason"), "detail")
    )
    return tasks, drops, index.height


def run_tasks(tasks: list[dict[str, Any]], config: CleanConfig) -> Iterator[pl.DataFrame]:
    """Judged documents, a block of consecutive ones at a time, in whatever order the workers finish."""
    if not tasks:
        return
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # it tells its plan and its progress on standard error
    with connect():
        dataset = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map_batches(
            judge_task, batch_size=1, batch_format="numpy", fn_kwargs={"config": config}, num_cpus=1
        )
        dataset.context.enable_progress_bars = False
        for block in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            if block.num_rows:
                yield pl.DataFrame(pl.from_arrow(block))


def preference(documents: pl.DataFrame, keep: str) -> NDArray[np.int64]:
    """The rank of each document as the one to stay among its near duplicates, 0 first, shape (rows,)."""
    numbered = documents.with_row_index("row")
    if keep == "longest":
        order = numbered.sort("bytes", "id", descending=[True, False])
    else:
        order = numbered.sort(pl.col("path").str.len_chars(), "path", "id")
    rank = np.empty(documents.height, np.int64)
    rank[order["row"].to_numpy()] = np.arange(documents.height)
    return rank


def drop_near_duplicates(documents: pl.DataFrame, config: CleanConfig) -> pl.DataFrame:
    """For documents that stay so far (id, path, bytes, signature; sorted by id): id, path, cluster and kept_id.

    kept_id is null for those that stay, and the id of the one that stays in its place for those that do not.
    """
    if not config.duplicates.near or documents.is_empty():
        return documents.select("id", "path", cluster="id", kept_id=pl.lit(None, dtype=pl.String))
    matrix: Signatures = np.frombuffer(b"".join(documents["signature"]), np.uint32).reshape(documents.height, -1)
    near = near_duplicates(
        matrix,
        preference(documents, config.duplicates.keep),
        rows_per_band=config.duplicates.rows_per_band,
        similarity=config.duplicates.similarity,
    )
    stays = pl.Series(near.kept == np.arange(documents.height))
    return documents.select(
        "id",
        "path",
        documents["id"].gather(near.cluster).alias("cluster"),
        documents["id"].gather(near.kept).set(stays, None).alias("kept_id"),
    )


def run(config: CleanConfig, *, source: Path, out: Path) -> Manifest:
    """Write data/clean."""
    events = Events("clean")
    inputs = [artifact.read(source)]
    with artifact.create(out, stage="clean", config=config, inputs=inputs, code=Path(__file__)) as draft:
        staging = draft.path / _STAGING
        staging.mkdir()
        tasks, exact, total = plan_tasks(source, config.task_bytes)
        seen, judged = exact.height, []
        for block in run_tasks(tasks, config):
            block.write_ipc(staging / f"{block['id'][0]}.arrow")  # blocks are runs of ids, so names sort as rows do
            judged.append(block.select(_JUDGED_SCHEMA.names()))
            seen += block.height
            events.progress(seen, total, "documents")
        documents = concat(judged, _JUDGED_SCHEMA).sort("id")
        fate = drop_near_duplicates(documents.filter(pl.col("reason").is_null()), config)
        near = fate.filter(pl.col("kept_id").is_not_null()).select(
            "id", "path", pl.lit("near_duplicate").alias("reason"), pl.col("kept_id").alias("detail")
        )
        filtered = documents.filter(pl.col("reason").is_not_null()).select(DROPS_SCHEMA.names())
        drops = concat([exact, filtered, near], DROPS_SCHEMA).sort("id", "path")
        writer = ShardWriter(draft.path, CLEAN_SCHEMA, config.shard_bytes)
        redactions = _write(staging, fate.filter(pl.col("kept_id").is_null()), writer)
        shutil.rmtree(staging)
        draft.rows = {
            **writer.rows,
            "drops.parquet": write_table(drops, draft.path / "drops.parquet"),
            "redactions.parquet": write_table(redactions, draft.path / "redactions.parquet"),
        }
        draft.statistics = {
            "documents": total,
            "kept": sum(writer.rows.values()),
            "bytes": writer.total_bytes,
            "dropped_by_reason": _counts(drops["reason"]),
            "redactions_by_kind": _counts(redactions["kind"]),
            "near_duplicate_clusters": _clusters(fate),
        }
    events.metrics({"kept": draft.statistics["kept"], "bytes": writer.total_bytes})
    events.metrics({f"dropped/{reason}": count for reason, count in draft.statistics["dropped_by_reason"].items()})
    assert draft.manifest is not None
    return draft.manifest


def _write(staging: Path, kept: pl.DataFrame, writer: ShardWriter) -> pl.DataFrame:
    """Write the documents that stay, in their order; returns their redactions."""
    redactions = []
    for path in sorted(staging.glob("*.arrow")):
        block = pl.read_ipc(path).join(kept.select("id", "cluster"), on="id", how="inner", maintain_order="left")
        redactions.append(block.select("id", "spans").explode("spans").drop_nulls("spans").unnest("spans"))
        writer.write(block.with_columns(redactions=pl.col("spans").list.len().cast(pl.Int32)))
    writer.close()
    return concat(redactions, REDACTIONS_SCHEMA)


def _clusters(fate: pl.DataFrame) -> int:
    """How many clusters have more than one document."""
    return int((fate["cluster"].value_counts()["count"] > 1).sum())


def _counts(values: pl.Series) -> dict[str, int]:
    return dict(sorted(values.value_counts().iter_rows()))


if __name__ == "__main__":
    main("clean", CleanConfig, run)
