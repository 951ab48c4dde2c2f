"""Take documents in from one source: a deterministic subset, one row per file, under licences that are let in.

Reads   the source that the config names: the running Python environment, directories, or Parquet tables
Writes  part-*.parquet: id, text, path, package, version, licence, language, source, bytes; sorted by id, then path
Covers: unreadable files, files that are not UTF-8 and files under other licences, each counted by reason.
Not covered: the quality of the text, which check_raw and clean judge.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from components.core import artifact
from components.core.artifact import Manifest
from components.core.errors import DataError
from components.core.events import Events
from components.core.step import main
from components.data.config import IngestConfig
from components.data.documents import SCHEMA, ShardWriter
from components.data.licences import refused
from components.data.sources import directory, parquet, python_environment
from components.data.sources.files import index_files, read_files

_FILE_SOURCES = {"python-environment": python_environment.find, "directory": directory.find}


def choose(ids: pl.Series, sizes: pl.Series, *, max_bytes: int, seed: int) -> pl.Series:
    """True for the documents of the subset, shape (rows,).

    Documents are taken in the order of sha256(seed, id) until the next would pass max_bytes: a property of the texts
    and not of their order, and a larger subset holds every smaller one. Copies of one text come and go together.
    """
    distinct = pl.DataFrame({"id": ids, "bytes": sizes}).group_by("id").agg(pl.col("bytes").sum())
    order = [hashlib.sha256(f"{seed}:{each}".encode()).hexdigest() for each in distinct["id"]]
    ranked = distinct.with_columns(pl.Series("order", order, dtype=pl.String)).sort("order")
    taken = ranked.filter(pl.col("bytes").cum_sum() <= max_bytes)["id"]
    return ids.is_in(taken.implode())


def run(config: IngestConfig, *, out: Path) -> Manifest:
    """Write data/raw. Raises DataError when the source is empty or the subset would be."""
    events = Events("ingest")
    batches, left, found = _open(config, events)
    with artifact.create(out, stage="ingest", config=config, inputs=[], code=Path(__file__)) as draft:
        writer = ShardWriter(draft.path, SCHEMA, config.shard_bytes)
        packages: Counter[str] = Counter()
        licences: Counter[str] = Counter()
        written_bytes = 0
        for batch in batches:
            writer.write(batch)
            packages.update(batch["package"])
            licences.update(batch["licence"])
            written_bytes += int(batch["bytes"].sum())
            events.progress(written_bytes, config.max_bytes, "bytes")
        writer.close()
        draft.rows = dict(writer.rows)
        draft.statistics = {
            "documents": sum(writer.rows.values()),
            "bytes": written_bytes,
            "found_documents": found,
            "packages": len(packages),
            "documents_by_licence": dict(sorted(licences.items())),
            "left_by_reason": dict(sorted(left.items())),
        }
    events.metrics({"documents": draft.statistics["documents"], "bytes": written_bytes})
    events.metrics({f"left/{reason}": count for reason, count in sorted(left.items())})
    assert draft.manifest is not None
    return draft.manifest


def _open(config: IngestConfig, events: Events) -> tuple[Iterator[pl.DataFrame], Counter[str], int]:
    """The chosen documents in their order, what was left by reason, and how many usable documents there were."""
    if config.source == "parquet":
        frame, left = parquet.read(config)
        frame = frame.filter(_allowed(frame["licence"], config.licences, left))
        index = frame.with_row_index("file").select("file", "id", "path", "bytes")
    else:
        found = _FILE_SOURCES[config.source](config)
        index, left = index_files(
            found,
            max_document_bytes=config.max_document_bytes,
            progress=lambda done, total: events.progress(done, total, "files"),
        )
    chosen = index.filter(choose(index["id"], index["bytes"], max_bytes=config.max_bytes, seed=config.seed))
    if chosen.is_empty():
        raise DataError(_empty(config, index, left))
    chosen = chosen.sort("id", "path", "file")
    if config.source == "parquet":
        return iter([frame[chosen["file"]]]), left, index.height
    return read_files(found, chosen, config.source), left, index.height


def _allowed(licences: pl.Series, allowed: tuple[str, ...], left: Counter[str]) -> pl.Series:
    """True for licences that the allow list lets in; the others are counted as `licence`."""
    verdicts: dict[str, bool] = {}
    for licence in licences.unique():
        try:
            verdicts[licence] = not refused(licence, allowed)
        except ValueError:
            verdicts[licence] = False
    kept = pl.Series([verdicts[licence] for licence in licences], dtype=pl.Boolean)
    if outside := int((~kept).sum()):
        left["licence"] += outside
    return kept


def _empty(config: IngestConfig, index: pl.DataFrame, left: Counter[str]) -> str:
    where = f"source {config.source}" + (f" ({', '.join(config.paths)})" if config.paths else "")
    if index.is_empty():
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left.items())) or "no files at all"
        return f"{where} is empty: found no usable document (left: {reasons}); point ingest.paths at source files"
    smallest = min(index["bytes"].to_list())
    return f"{where}: no document fits ingest.max_bytes {config.max_bytes}; the smallest has {smallest} bytes, raise it"


if __name__ == "__main__":
    main("ingest", IngestConfig, run)
