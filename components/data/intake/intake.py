"""The middle of ingest: batches of documents go in, in the order of the sources; chosen ones come out, sorted by id.

Between the two they wait on disk: at most about twice the bytes that may enter, whatever the sources hold, in buckets
of neighbouring ids. What does not enter waits beside them, with its reason.
"""

import itertools
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from components.data.config import IngestConfig
from components.data.documents.document import SCHEMA
from components.data.documents.edit import in_order
from components.data.intake import opt_out
from components.data.intake.admission import admit, shown_detail, shown_path
from components.data.intake.selection import MAX_RANK, Selection, bins, rank_limit, ranks
from components.data.intake.spool import BUCKET, Spool
from components.data.sources.reading.document_batch import LEFT_SCHEMA, Batch

LEFT_COLUMNS = pl.Schema([("source", pl.String), *LEFT_SCHEMA.items()])
# A bucket of documents is sorted in memory, and so is a group of rows of left.parquet.
_BUCKET_BYTES = 128_000_000
_MAX_BUCKETS = 1024
_LEFT_BUCKETS = 256
_LEFT_GROUP_ROWS = 1_000_000
# Beyond this what waits is compressed; below, compression cost a tenth of the time of an ingest for nothing.
_PLAIN_BYTES = 4_000_000_000
_FLUSH_BYTES = (32_000_000, 256_000_000)
_WAITING = pl.Schema([*SCHEMA.items(), ("entry", pl.UInt32), ("rank", pl.UInt64), (BUCKET, pl.UInt32)])
_CHOSEN_BY = ("entry", "rank", "bytes", "path")
# Two documents that agree in all of these are the same row, so the order among them says nothing.
_ORDER = ("id", "path", "entry", "package", "version", "licence", "language")


class Intake:
    """Documents that may still enter and all that did not. Sources are numbered as in the config."""

    def __init__(self, config: IngestConfig, directory: Path, entries: Sequence[opt_out.Entry]) -> None:
        self.selection = Selection(
            config.max_bytes, [each.weight for each in config.sources], [each.max_bytes for each in config.sources]
        )
        self.left: Counter[tuple[str, str]] = Counter()
        self.opted_out: Counter[str] = Counter()
        self.first_left = ""
        self.edits_left: Counter[str] = Counter()
        self._edits = [pl.DataFrame(schema=SCHEMA)]
        self._config = config
        self._entries = entries
        self._labels = [each.label for each in config.sources]
        flush_bytes = min(_FLUSH_BYTES[1], max(_FLUSH_BYTES[0], config.max_bytes // 16))
        num_buckets = min(_MAX_BUCKETS, 1 + config.max_bytes // _BUCKET_BYTES)
        self._documents = Spool(
            directory / "documents",
            _WAITING,
            num_buckets=num_buckets,
            flush_bytes=flush_bytes,
            compress=config.max_bytes > _PLAIN_BYTES,
        )
        schema = pl.Schema([*LEFT_COLUMNS.items(), (BUCKET, pl.UInt32)])
        self._left = Spool(directory / "left", schema, num_buckets=_LEFT_BUCKETS, flush_bytes=flush_bytes)
        self._waiting_bytes = 0

    def take(self, number: int, batch: Batch) -> None:
        """Judge a batch of a source; keep what may enter, take down what may not."""
        frame, refused = self._admit(number, batch.documents)
        self._take_edits(number, batch.edits)
        self._leave(number, batch.left.select(shown_path(), "reason", shown_detail()))
        self._leave(number, refused)
        self.opted_out.update(refused.filter(pl.col("reason") == "opt_out")["detail"])
        frame = frame.with_columns(
            ranks(frame["id"], self._config.seed),
            pl.col("package", "version").fill_null(""),
            pl.col("language").fill_null("unknown"),
            source=pl.lit(self._labels[number]),
            entry=pl.lit(number, dtype=pl.UInt32),
        )
        may_enter = self.selection.offer(number, frame["rank"], frame["bytes"])
        self._leave(number, _not_chosen(frame.filter(~may_enter)))
        frame = frame.filter(may_enter)
        self._documents.add(frame.with_columns(_buckets(frame["id"], self._documents.num_buckets)))
        self._waiting_bytes += int(frame["bytes"].sum())
        if self._waiting_bytes > 2 * self._config.max_bytes + _FLUSH_BYTES[0]:
            self._drop_what_is_too_late()

    def _admit(self, number: int, documents: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        return admit(
            documents,
            max_document_bytes=self._config.sources[number].max_document_bytes,
            licences=self._config.licences,
            entries=self._entries,
        )

    def _take_edits(self, number: int, edits: pl.DataFrame) -> None:
        """Judge edits as documents are, their commit's author too. They are few, so that they wait in memory."""
        if edits.height:
            frame, refused = self._admit(number, edits)
            self.edits_left.update(refused["reason"])
            self._edits.append(frame.with_columns(source=pl.lit(self._labels[number])).select(SCHEMA.names()))

    def edits(self) -> pl.DataFrame:
        """The edits that may enter, each once, sorted by id."""
        return in_order(pl.concat(self._edits))

    def documents(self) -> Iterator[pl.DataFrame]:
        """The documents that enter, sorted by id, then path; call it once every source has been read."""
        limits = self._limits()
        for bucket in range(self._documents.num_buckets):
            frame = self._documents.read(range(bucket, bucket + 1))
            enters = pl.Series(frame["rank"].to_numpy() < limits[frame["entry"].to_numpy()], dtype=pl.Boolean)
            self._leave_unchosen(frame.filter(~enters))
            yield frame.filter(enters).sort(_ORDER).select(SCHEMA.names())

    def write_left(self, path: Path) -> int:
        """Write all that did not enter; returns the number of rows.

        Row groups of about a million rows, dealt by a hash of the path, each sorted by source, path and reason.
        """
        groups = min(self._left.num_buckets, 1 + self._left.rows // _LEFT_GROUP_ROWS)
        edges = [number * self._left.num_buckets // groups for number in range(groups + 1)]
        schema = pl.DataFrame(schema=LEFT_COLUMNS).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for start, stop in itertools.pairwise(edges):
                rows = self._left.read(range(start, stop)).select(LEFT_COLUMNS.names()).sort(LEFT_COLUMNS.names())
                table = rows.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
                writer.write_table(table, row_group_size=max(1, rows.height))
        return self._left.rows

    def left_by_reason(self, label: str | None = None) -> dict[str, int]:
        """What was left, counted, by one source or by all."""
        counted: Counter[str] = Counter()
        for (source, reason), count in self.left.items():
            if label in (None, source):
                counted[reason] += count
        return dict(sorted(counted.items()))

    def _leave(self, number: int, rows: pl.DataFrame) -> None:
        if rows.is_empty():
            return
        self.first_left = self.first_left or ": ".join(each for each in rows.row(0) if each)
        for reason, count in rows["reason"].value_counts().iter_rows():
            self.left[self._labels[number], reason] += count
        buckets = [zlib.crc32(path.encode()) * _LEFT_BUCKETS >> 32 for path in rows["path"]]
        self._left.add(
            rows.with_columns(pl.Series(BUCKET, buckets, dtype=pl.UInt32), source=pl.lit(self._labels[number]))
        )

    def _leave_unchosen(self, rows: pl.DataFrame) -> None:
        for number in rows["entry"].unique().sort():
            self._leave(number, _not_chosen(rows.filter(pl.col("entry") == number)))

    def _drop_what_is_too_late(self) -> None:
        """Drop the documents that wait and, as shares fell, can no longer enter."""
        last = np.array(self.selection.last_bins(), dtype=np.uint64)
        kept_bytes = 0

        def keep(frame: pl.DataFrame) -> pl.Series:
            nonlocal kept_bytes
            kept = bins(frame["rank"]) <= pl.Series(last[frame["entry"].to_numpy()])
            kept_bytes += int(frame.filter(kept)["bytes"].sum())
            return kept

        for dropped in self._documents.compact(keep, _CHOSEN_BY):
            self._leave_unchosen(dropped)
        self._waiting_bytes = kept_bytes

    def _limits(self) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
        """The rank below which each source's documents enter, shape (sources,)."""
        last = np.array(self.selection.last_bins(), dtype=np.uint64)
        at_limit = [pl.DataFrame(schema={name: _WAITING[name] for name in _CHOSEN_BY})]
        for frame in self._documents.scan(_CHOSEN_BY):
            at_limit.append(frame.filter(bins(frame["rank"]) == pl.Series(last[frame["entry"].to_numpy()])))
        rows = pl.concat(at_limit)
        limits = np.full(len(last), MAX_RANK, dtype=np.uint64)
        for number, share in enumerate(self.selection.shares()):
            mine = rows.filter(pl.col("entry") == number)
            if mine.height:
                budget = share - self.selection.bytes_before(number, int(last[number]))
                limits[number] = rank_limit(mine["rank"], mine["bytes"], budget)
        return limits


def _buckets(ids: pl.Series, num_buckets: int) -> pl.Series:
    """The bucket of each id, shape (rows,): the order by bucket is the order by id."""
    first = ids.str.head(4).str.to_integer(base=16, dtype=pl.UInt32, strict=True)
    return (first * num_buckets // 65536).cast(pl.UInt32).alias(BUCKET)


def _not_chosen(rows: pl.DataFrame) -> pl.DataFrame:
    """Documents that were beyond the share of their source, as LEFT_SCHEMA."""
    return rows.select(shown_path(), reason=pl.lit("not_chosen"), detail=pl.lit(""))
