"""Judge documents by a Great Expectations suite, over columns of statistics, never over the texts.

check_raw    reads data/raw; writes data/checked: the rows that pass, quarantine.parquet with rule and value,
             edits.parquet as it came (an edit counts where its file's document stays),
             contract.json (every rule with its figures), summary.json (what came in, see
             components.data.contracts.profile)
check_clean  reads data/clean and data/checked; writes reports/check_clean: contract.json, summary.json (what stays),
             profile.json (both, and what left in between); any failure blocks what comes after
Both write Data Docs below the state directory; they hold times, so they are no part of an artifact.
Covers: identity, encoding, size, licence and language of every row.  Not covered: what the code does; drift against
an earlier cycle, which the cycle's flow judges from summary.json.

Memory is a few row groups of text and the statistics, some 300 bytes a document.
"""

import json
import os
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import polars as pl

from components.core import artifact
from components.core.artifact import Manifest
from components.core.errors import DataError
from components.core.events import Events
from components.core.step import main
from components.data.config import CheckCleanConfig, CheckRawConfig
from components.data.contracts.contract import Contract, worst
from components.data.contracts.measures import document_statistics
from components.data.contracts.profile import PROFILE, SUMMARY, profile, summary
from components.data.contracts.rules import suite_digest
from components.data.documents.document import PARTS, SCHEMA, ShardWriter, row_groups, write_table
from components.data.documents.edit import EDITS, read_edits

_QUARANTINE_FIRST = ("id", "path", "rule", "value")
_LEFT = "left.parquet"
_LEFT_COLUMNS = ("path", "reason", "detail")


def check_raw(config: CheckRawConfig, *, source: Path, out: Path) -> Manifest:
    """Write data/checked. Raises DataError when more than the allowed share of documents is quarantined."""
    events = Events("check_raw")
    contract = Contract("raw", config, events)
    inputs = [artifact.read(source)]
    statistics = _statistics(source, config.licences, events, _documents(inputs[0]))
    verdict = contract.judge(statistics)
    page = contract.docs / "index.html"
    if verdict.failed_rules:
        raise DataError(f"{source}: the table fails {', '.join(verdict.failed_rules)}; see {page}")
    quarantined = verdict.rows["row"].n_unique()
    by_rule = verdict.by_rule()
    events.metrics({"documents": statistics.height, "quarantined": quarantined})
    if quarantined > config.max_quarantined_share * statistics.height:
        raise DataError(
            f"{source}: {quarantined} of {statistics.height} documents fail the suite ({worst(by_rule)}), more than "
            f"check_raw.max_quarantined_share {config.max_quarantined_share:g}; see {page}"
        )
    for rule in verdict.failed:
        if rule in config.mostly:
            raise DataError(
                f"{source}: {by_rule[rule]} of {statistics.height} documents fail {rule}, check_raw.mostly wants "
                f"{config.mostly[rule]:g} of them to pass; see {page}"
            )
    with artifact.create(out, stage="check_raw", config=config, inputs=inputs, code=Path(__file__)) as draft:
        writer = ShardWriter(draft.path, SCHEMA, _shard_bytes(inputs[0]))
        quarantine = list(_split(source, verdict.rows, writer))
        writer.close()
        table = pl.concat(quarantine)
        draft.rows = {**writer.rows, "quarantine.parquet": write_table(table, draft.path / "quarantine.parquet")}
        if (edits := read_edits(source)) is not None:
            draft.rows[EDITS] = write_table(edits, draft.path / EDITS)
        contract.write_report(verdict, draft.path)
        _write_json(summary(statistics), draft.path / SUMMARY)
        draft.statistics = {
            "documents": statistics.height,
            "passed": statistics.height - quarantined,
            "quarantined": quarantined,
            "quarantined_by_rule": by_rule,
            "suite_sha256": suite_digest("raw"),
        }
    assert draft.manifest is not None
    return draft.manifest


def _documents(manifest: Manifest) -> int:
    """How many documents an artifact says that it has."""
    return sum(file.rows or 0 for file in manifest.files if fnmatch(file.path, PARTS))


def _shard_bytes(raw: Manifest) -> int:
    """The shard size that the documents came in with: checking does not cut them anew."""
    return int(raw.config["shard_bytes"])


def _split(source: Path, broken: pl.DataFrame, writer: ShardWriter) -> Iterator[pl.DataFrame]:
    """Pass the rows that broke no rule to the writer, and give the others with each rule they broke."""
    start = 0
    for _, _, group in row_groups(source):
        numbered = group.with_columns(pl.int_range(start, start + pl.len(), dtype=pl.UInt32).alias("row"))
        start += group.height
        writer.write(numbered.join(broken, on="row", how="anti", maintain_order="left"))
        failed = numbered.join(broken, on="row", how="inner", maintain_order="left_right")
        yield failed.select(*_QUARANTINE_FIRST, pl.exclude(*_QUARANTINE_FIRST, "row"))


def check_clean(config: CheckCleanConfig, *, source: Path, checked: Path, raw: Path, out: Path) -> Manifest:
    """Write reports/check_clean. Raises DataError, and leaves an older report, when any expectation fails.

    `checked` and `raw` are what `source` was made from, for the profile.
    """
    events = Events("check_clean")
    contract = Contract("clean", config, events)
    inputs = [artifact.read(each) for each in (source, checked, raw)]
    statistics = _statistics(source, config.licences, events, _documents(inputs[0]))
    verdict = contract.require(statistics, where=source)
    with artifact.create(out, stage="check_clean", config=config, inputs=inputs, code=Path(__file__)) as draft:
        contract.write_report(verdict, draft.path)
        after = summary(statistics)
        _write_json(after, draft.path / SUMMARY)
        _write_json(_profile(after, source, checked, raw), draft.path / PROFILE)
        draft.statistics = {
            "documents": statistics.height,
            "expectations": len(verdict.results),
            "suite_sha256": suite_digest("clean"),
        }
    assert draft.manifest is not None
    return draft.manifest


def _profile(after: dict[str, Any], clean: Path, checked: Path, raw: Path) -> dict[str, Any]:
    """profile.json from what the three artifacts hold; columns alone are read, no text."""
    left = raw / _LEFT
    return profile(
        json.loads((checked / SUMMARY).read_text(encoding="utf-8")),
        after,
        left=pl.read_parquet(left, columns=list(_LEFT_COLUMNS))
        if left.exists()
        else pl.DataFrame(schema=dict.fromkeys(_LEFT_COLUMNS, pl.String)),
        quarantine=pl.read_parquet(checked / "quarantine.parquet", columns=["path", "rule", "value", "bytes"]),
        drops=pl.read_parquet(clean / "drops.parquet", columns=["id", "path", "reason", "detail"]),
        redactions=pl.read_parquet(clean / "redactions.parquet", columns=["id", "kind"]),
        checked=_columns(checked, ["id", "bytes"]),
        kept=_columns(clean, ["id", "path", "cluster"]),
    )


def _columns(source: Path, columns: list[str]) -> pl.DataFrame:
    """Some columns of an artifact's rows."""
    return pl.concat(group for _, _, group in row_groups(source, columns))


def _write_json(value: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _statistics(source: Path, licences: tuple[str, ...], events: Events, total: int) -> pl.DataFrame:
    """Document statistics of an artifact, a row group at a time for each core."""
    workers = os.cpu_count() or 1
    frames: list[pl.DataFrame] = []
    waiting: deque[Future[pl.DataFrame]] = deque()
    done = 0

    def take() -> None:
        nonlocal done
        frames.append(waiting.popleft().result())
        done += frames[-1].height
        events.progress(done, total, "documents")

    with ThreadPoolExecutor(max_workers=workers) as pool:
        for _, _, group in row_groups(source):
            waiting.append(pool.submit(document_statistics, group, licences))
            if len(waiting) > workers:
                take()
        while waiting:
            take()
    return pl.concat(frames)


if __name__ == "__main__":
    if sys.argv[1:2] == ["check_clean"]:
        main("check_clean", CheckCleanConfig, check_clean, sys.argv[2:])
    main("check_raw", CheckRawConfig, check_raw, sys.argv[2:] if sys.argv[1:2] == ["check_raw"] else sys.argv[1:])
