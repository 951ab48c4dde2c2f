"""Feedback on the model that serves: completions that people accepted, as documents in their context.

Reads   Parquet files of events, with the columns of components.data.documents.feedback_rows.SCHEMA
Covers: the contract `feedback`, whose rules keep events out: one answer to a request counts, the last one; a number of
events a user, not a share. What was rejected, or broke a rule, is left with that as its reason.
Not covered: the collecting of events, which operations write; preferences from accepted and rejected completions of
one prompt. This source is thin on purpose: it is where feedback enters, not what judges it.
"""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from components.core.config import read_settings
from components.core.errors import DataError, one_line
from components.data.config import FeedbackContract
from components.data.contracts.rules import violations
from components.data.documents.feedback_rows import SCHEMA, feedback_statistics
from components.data.sources.config import FeedbackSource
from components.data.sources.parquet import checked
from components.data.sources.reading.arrow_types import extension_type
from components.data.sources.reading.cells import seconds_of
from components.data.sources.reading.document_batch import BATCH_SCHEMA, LEFT_SCHEMA, Batch, left_rows
from components.data.sources.reading.table import Refusals, read_each, texts_of

_FOLDER = "feedback"
_SUITE = "feedback"
_PLACE = ("file", "row")
_TEXTS = ("prompt", "completion")
_PLACED = pl.Schema([*SCHEMA.items(), *((name, pl.Int64()) for name in _PLACE)])


def read(config: FeedbackSource) -> Iterator[Batch]:
    """A batch for each file of events. Raises DataError for a file that does not hold events."""
    folder = Path(config.path) if config.path else read_settings().state / _FOLDER
    files = sorted(folder.glob("*.parquet")) if folder.is_dir() else []
    if not files:
        raise DataError(f"{folder}: found no Parquet file of events; correct ingest.sources, or collect feedback first")
    verdicts = judge(pl.concat(_events(number, path)[0] for number, path in enumerate(files)), config)
    for number, path in enumerate(files):
        here = verdicts.filter(pl.col("file") == number)
        events, refused = _events(number, path)
        accepted = here.filter(pl.col("reason").is_null()).join(events.select("row", *_TEXTS), on="row")
        left = [here.drop_nulls("reason").select(LEFT_SCHEMA.names()), refused]
        if events.height or refused.height:
            yield Batch(documents=_documents(accepted, config), left=pl.concat(left))


def judge(events: pl.DataFrame, config: FeedbackSource) -> pl.DataFrame:
    """file, row, path, user, model_digest, reason, detail for each event; reason is null where it becomes a document.

    `events` are of feedback's SCHEMA with file and row, in any order. The reason is the first rule that an event
    breaks, else `rejected`, else `request_repeated` for another user's word on the same request.
    """
    contract = FeedbackContract(max_events_per_user=config.max_events_per_user)
    broken = violations(feedback_statistics(events), _SUITE, contract).unique("row", keep="first", maintain_order=True)
    judged = (
        events.with_row_index("event")
        .join(broken, left_on="event", right_on="row", how="left", maintain_order="left")
        .with_columns(
            reason=pl.coalesce("rule", pl.when(pl.col("kind") == "reject").then(pl.lit("rejected"))),
            detail=pl.coalesce("value", pl.col("event_id")),
        )
    )
    newest_first = pl.struct(-pl.col("at"), pl.col("event_id")).rank("ordinal")
    repeated = pl.col("reason").is_null() & (newest_first.over("request_id", pl.col("reason").is_null()) > 1)
    return judged.select(
        *_PLACE,
        pl.coalesce("request_id", pl.lit("unknown")).alias("path"),
        "user",
        "model_digest",
        pl.when(repeated).then(pl.lit("request_repeated")).otherwise("reason").alias("reason"),
        "detail",
    )


def _events(number: int, path: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The events of one file with their place, and those of which a value is not what its column needs, as left."""
    if named := extension_type(path):
        raise DataError(f"{path}: holds the Arrow extension type {named}, needed plain columns; write it without")
    try:
        shard = pq.ParquetFile(path)
        names = shard.schema_arrow.names
        if missing := [name for name in SCHEMA if name not in names]:
            raise DataError(f"{path}: lacks {', '.join(missing)}; needed the columns {', '.join(SCHEMA)}")
        if repeated := [name for name in SCHEMA if names.count(name) > 1]:
            raise DataError(f"{path}: {repeated[0]} is there {names.count(repeated[0])} times, needed each column once")
        batches = [checked(each) for each in shard.iter_batches(columns=list(SCHEMA))]
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as events: {one_line(error)}") from error
    refused: list[tuple[str, str, str]] = []
    read: list[pl.DataFrame] = [pl.DataFrame(schema=_PLACED)]
    row = 0
    for batch in batches:
        refusals: Refusals = {}
        values = {
            name: texts_of(batch.column(name), name, refusals)
            if kind == pl.String
            else read_each((batch.column(name),), seconds_of, refusals, kind)
            for name, kind in SCHEMA.items()
        }
        frame = pl.DataFrame(values).with_columns(
            pl.lit(number, pl.Int64).alias("file"), pl.int_range(row, row + pl.len()).alias("row")
        )
        read.append(frame.filter(~(pl.col("row") - row).is_in(list(refusals))).select(_PLACED.names()))
        refused += [(f"{path.name}:{row + each}", *why) for each, why in sorted(refusals.items())]
        row += batch.num_rows
    return pl.concat(read), left_rows(refused)


def _documents(accepted: pl.DataFrame, config: FeedbackSource) -> pl.DataFrame:
    """Accepted events as documents: the prompt and what was accepted after it; the user is the author, for opt-outs."""
    return (
        accepted.select(
            text=pl.col("prompt") + pl.col("completion"),
            path="path",
            package=pl.lit(config.label),
            version="model_digest",
            licence=pl.lit(config.licence),
            language=pl.lit(config.language),
            author="user",
        )
        .select(BATCH_SCHEMA.names())
        .cast(BATCH_SCHEMA)
    )
