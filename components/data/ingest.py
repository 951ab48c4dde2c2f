"""Take documents in from any number of sources, mixed by weight: a deterministic subset, one row per document.

Reads   the sources that the config names, each once and as a stream, and the opt-out list
Writes  part-*.parquet: id, text, path, package, version, licence, language, source, bytes; sorted by id, then path
        left.parquet: source, path, reason, detail of all that did not enter; each row group sorted by these
        edits.parquet: edits of functions from the histories that sources were asked for (documents/edit.py)
Covers: licences as SPDX and the allow list, opt-outs, shares by weight, caps, sources larger than memory (what may
still enter waits on disk, at most about twice ingest.max_bytes of it), an empty source, a kill at any moment.
Not covered: the quality of the text, which check_raw and clean judge; copies, which clean finds.
"""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl

from components.core import artifact
from components.core.artifact import Draft, Manifest
from components.core.errors import DataError
from components.core.events import Events
from components.core.step import main
from components.data.config import DEFAULT_OPT_OUT, IngestConfig
from components.data.documents.document import SCHEMA, ShardWriter, write_table
from components.data.documents.edit import EDITS
from components.data.intake import opt_out
from components.data.intake.intake import Intake
from components.data.sources import readers
from components.data.sources.config import GitSource

LEFT = "left.parquet"
_WAITING = ".waiting"


def run(config: IngestConfig, *, out: Path) -> Manifest:
    """Write data/raw. Raises DataError when a source cannot be read, or when no document enters."""
    events = Events("ingest")
    entries = _opt_outs(config)
    with artifact.create(out, stage="ingest", config=config, inputs=[], code=Path(__file__)) as draft:
        intake = Intake(config, draft.path / _WAITING, entries)
        _read_sources(config, intake, events)
        writer = ShardWriter(draft.path, SCHEMA, config.shard_bytes)
        packages: set[str] = set()
        counted: Counter[tuple[str, str]] = Counter()
        totals: dict[str, Counter[str]] = {each.label: Counter() for each in config.sources}
        for frame in intake.documents():
            writer.write(frame)
            packages.update(frame["package"].unique())
            _count(frame, counted, totals)
        writer.close()
        if not sum(writer.rows.values()):
            raise DataError(_nothing(config, intake))
        draft.rows = {**writer.rows, LEFT: intake.write_left(draft.path / LEFT)}
        shutil.rmtree(draft.path / _WAITING)
        draft.statistics = {
            **_statistics(config, intake, totals),
            **_write_edits(config, intake, draft),
            "packages": len(packages),
            "documents_by_licence": {key: n for (column, key), n in sorted(counted.items()) if column == "licence"},
            "documents_by_language": {key: n for (column, key), n in sorted(counted.items()) if column == "language"},
            "opted_out": dict(sorted(intake.opted_out.items())),
        }
    for source in config.sources:
        readers.forget(source)
    events.metrics({"documents": draft.statistics["documents"], "bytes": draft.statistics["bytes"]})
    events.metrics({f"left/{reason}": count for reason, count in draft.statistics["left_by_reason"].items()})
    assert draft.manifest is not None
    return draft.manifest


def _opt_outs(config: IngestConfig) -> tuple[opt_out.Entry, ...]:
    """The opt-out list; only the default one may be absent."""
    path = Path(config.opt_out)
    return opt_out.read(path) if path.exists() or config.opt_out != DEFAULT_OPT_OUT else ()


def _read_sources(config: IngestConfig, intake: Intake, events: Events) -> None:
    """Every source, one after the other, a batch at a time."""
    selection = intake.selection
    for number, source in enumerate(config.sources):
        for batch in readers.read(source):
            intake.take(number, batch)
            events.progress(min(sum(selection.found_bytes), config.max_bytes), config.max_bytes, "bytes")
        if not selection.found_documents[number]:
            events.note(f"source {source.label} has no usable document (left: {_reasons(intake, source.label)})")


def _write_edits(config: IngestConfig, intake: Intake, draft: Draft) -> dict[str, Any]:
    """Write the edits, where a source was asked for its history; their statistics."""
    if not any(isinstance(source, GitSource) and source.history_commits for source in config.sources):
        return {}
    edits = intake.edits()
    draft.rows[EDITS] = write_table(edits, draft.path / EDITS)
    return {"edits": {"number": edits.height, "left_by_reason": dict(sorted(intake.edits_left.items()))}}


def _count(frame: pl.DataFrame, counted: Counter[tuple[str, str]], totals: dict[str, Counter[str]]) -> None:
    """Add the documents of a frame to the counts by licence and language, and by source."""
    for column in ("licence", "language"):
        for key, count in frame[column].value_counts().iter_rows():
            counted[column, key] += count
    for label, documents, size in frame.group_by("source").agg(pl.len(), pl.col("bytes").sum()).iter_rows():
        totals[label].update(documents=documents, bytes=size)


def _statistics(config: IngestConfig, intake: Intake, totals: dict[str, Counter[str]]) -> dict[str, Any]:
    """What was found, taken and left, together and by source."""
    selection = intake.selection
    reasons = intake.left_by_reason()
    return {
        "documents": sum(each["documents"] for each in totals.values()),
        "bytes": sum(each["bytes"] for each in totals.values()),
        "found_documents": sum(selection.found_documents),
        "found_bytes": sum(selection.found_bytes),
        "not_chosen": reasons.pop("not_chosen", 0),
        "left_by_reason": reasons,
        "sources": {
            source.label: {
                "kind": source.kind,
                "found_documents": selection.found_documents[number],
                "found_bytes": selection.found_bytes[number],
                "share_bytes": selection.shares()[number],
                "documents": totals[source.label]["documents"],
                "bytes": totals[source.label]["bytes"],
                "left_by_reason": intake.left_by_reason(source.label),
            }
            for number, source in enumerate(config.sources)
        },
    }


def _reasons(intake: Intake, label: str | None = None) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in intake.left_by_reason(label).items()) or "no files at all"


def _nothing(config: IngestConfig, intake: Intake) -> str:
    """Why no document enters, and what to do about it, in one line."""
    names = ", ".join(each.label for each in config.sources)
    where = f"source {names} is empty" if len(config.sources) == 1 else f"sources {names} are empty"
    if not sum(intake.selection.found_documents):
        first = f"; the first: {intake.first_left}" if intake.first_left else ""
        return (
            f"{where}: found no usable document (left: {_reasons(intake)}{first}); "
            "point ingest.sources at source files, or let their licences in with ingest.licences"
        )
    return (
        f"no document fits ingest.max_bytes {config.max_bytes}, or the share or cap of its source; raise them "
        f"(found {sum(intake.selection.found_documents)} documents of {sum(intake.selection.found_bytes)} bytes)"
    )


if __name__ == "__main__":
    main("ingest", IngestConfig, run)
