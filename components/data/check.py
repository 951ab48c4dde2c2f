"""Judge documents by a Great Expectations suite, over columns of statistics, never over the texts.

check_raw    reads data/raw, writes data/checked: the rows that pass, and quarantine.parquet with rule and value
check_clean  reads data/clean, writes reports/check_clean: report.json; any failure blocks what comes after
Both write Data Docs below the state directory; they hold times, so they are no part of an artifact.
Covers: identity, encoding, size, licence and language of every row.  Not covered: what the code does.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import great_expectations as gx
import polars as pl

from components.core import artifact
from components.core.artifact import Manifest
from components.core.config import StepConfig, read_settings
from components.core.errors import DataError
from components.core.events import Events
from components.core.step import main
from components.data.config import CheckCleanConfig, CheckRawConfig
from components.data.documents import SCHEMA, ShardWriter, row_groups, write_table
from components.data.measures import document_statistics
from components.data.rules import bounds, read_suite, suite_digest

_QUARANTINE_FIRST = ("id", "path", "rule", "value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a suite found. `rows` has row, rule, value for every row that fails a row-level expectation."""

    results: list[dict[str, Any]]
    rows: pl.DataFrame
    failed_rules: list[str]


def judge(statistics: pl.DataFrame, name: str, config: StepConfig, *, docs: Path) -> Verdict:
    """Run the suite `name` (raw, clean) over document statistics and write its Data Docs.

    `failed_rules` lists the table-level expectations that failed: no single row is to blame for them.
    """
    suite = read_suite(name)
    result = _validate(statistics, suite, bounds(config), docs)
    rows = pl.DataFrame(schema={"row": pl.UInt32, "order": pl.Int64, "rule": pl.String, "value": pl.String})
    results, failed = [], []
    for order, expectation in enumerate(suite["expectations"]):
        rule = expectation["meta"]["rule"]
        found = result[rule]
        if found["exception"]:
            raise DataError(f"suite {name}: rule {rule} could not be judged: {found['exception']}")
        results.append({"rule": rule, "expectation": expectation["type"], **found["summary"]})
        if not found["success"] and not found["rows"]:
            failed.append(rule)
        broken = pl.Series("row", found["rows"], dtype=pl.UInt32)
        column = expectation["kwargs"].get("column", "id")
        rows.extend(
            pl.DataFrame({"row": broken, "value": statistics[column].gather(broken).cast(pl.String)}).select(
                "row", pl.lit(order, dtype=pl.Int64).alias("order"), pl.lit(rule).alias("rule"), "value"
            )
        )
    return Verdict(results=results, rows=rows.sort("row", "order").drop("order"), failed_rules=failed)


def _validate(
    statistics: pl.DataFrame, suite: dict[str, Any], parameters: dict[str, Any], docs: Path
) -> dict[str, dict[str, Any]]:
    """By rule: success, summary (figures without times), rows (numbers of failing rows), exception.

    Great Expectations answers in an order of its own, so a result is known by the rule that its meta names.
    """
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    for site in list(context.variables.data_docs_sites or {}):
        context.delete_data_docs_site(site)
    context.add_data_docs_site(
        site_name="local",
        site_config={
            "class_name": "SiteBuilder",
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())},
        },
    )
    asset = context.data_sources.add_pandas("documents").add_dataframe_asset(suite["name"])
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(
            name=suite["name"],
            data=asset.add_batch_definition_whole_dataframe("all"),
            suite=context.suites.add(gx.ExpectationSuite(name=suite["name"], expectations=suite["expectations"])),
        )
    )
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(
            name=suite["name"],
            validation_definitions=[definition],
            actions=[gx.checkpoint.UpdateDataDocsAction(name="docs", site_names=["local"])],
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["row"]},
        )
    )
    frame = statistics.with_row_index("row").to_pandas()
    outcome = checkpoint.run(batch_parameters={"dataframe": frame}, expectation_parameters=parameters)
    (validation,) = outcome.run_results.values()
    return {result.expectation_config.meta["rule"]: _plain(result) for result in validation.results}


def _plain(result: Any) -> dict[str, Any]:
    """One expectation's result as plain values."""
    kept = ("element_count", "unexpected_count", "observed_value")
    figures = {name: result.result[name] for name in kept if name in result.result}
    exception = result.exception_info or {}
    messages = [exception] if "raised_exception" in exception else list(exception.values())
    raised = [each["exception_message"] for each in messages if each.get("raised_exception")]
    return {
        "success": bool(result.success),
        "summary": {"success": bool(result.success), **json.loads(json.dumps(figures, default=str))},
        "rows": sorted({int(each["row"]) for each in result.result.get("unexpected_index_list") or []}),
        "exception": " ".join(raised[0].split())[:200] if raised else "",
    }


def check_raw(config: CheckRawConfig, *, source: Path, out: Path) -> Manifest:
    """Write data/checked. Raises DataError when more than the allowed share of documents is quarantined."""
    events = Events("check_raw")
    inputs = [artifact.read(source)]
    statistics = _statistics(source, config.licences, events, inputs[0].rows)
    docs = read_settings().state / "docs" / "check_raw"
    verdict = judge(statistics, "raw", config, docs=docs)
    if verdict.failed_rules:
        raise DataError(f"{source}: the table fails {', '.join(verdict.failed_rules)}; see {docs / 'index.html'}")
    quarantined = verdict.rows["row"].n_unique()
    by_rule = _counts(verdict.rows)
    events.metrics({"documents": statistics.height, "quarantined": quarantined})
    if quarantined > config.max_quarantined_share * statistics.height:
        raise DataError(
            f"{source}: {quarantined} of {statistics.height} documents fail the suite ({_worst(by_rule)}), more than "
            f"check_raw.max_quarantined_share {config.max_quarantined_share:g}; see {docs / 'index.html'}"
        )
    with artifact.create(out, stage="check_raw", config=config, inputs=inputs, code=Path(__file__)) as draft:
        writer = ShardWriter(draft.path, SCHEMA, _shard_bytes(inputs[0]))
        quarantine = list(_split(source, verdict.rows, writer))
        writer.close()
        table = pl.concat(quarantine)
        draft.rows = {**writer.rows, "quarantine.parquet": write_table(table, draft.path / "quarantine.parquet")}
        draft.statistics = {
            "documents": statistics.height,
            "passed": statistics.height - quarantined,
            "quarantined": quarantined,
            "quarantined_by_rule": by_rule,
            "suite_sha256": suite_digest("raw"),
        }
    assert draft.manifest is not None
    return draft.manifest


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


def check_clean(config: CheckCleanConfig, *, source: Path, out: Path) -> Manifest:
    """Write reports/check_clean. Raises DataError, and leaves an older report, when any expectation fails."""
    events = Events("check_clean")
    inputs = [artifact.read(source)]
    statistics = _statistics(source, config.licences, events, inputs[0].rows)
    docs = read_settings().state / "docs" / "check_clean"
    verdict = judge(statistics, "clean", config, docs=docs)
    by_rule = _counts(verdict.rows)
    if verdict.failed_rules or by_rule:
        first = verdict.rows.head(1)
        example = ""
        if first.height:
            row = statistics[int(first["row"][0])]
            example = f"; first {row['path'][0]} ({first['rule'][0]}: {first['value'][0]})"
        failures = {**dict.fromkeys(verdict.failed_rules, 1), **by_rule}
        raise DataError(
            f"{source}: the clean corpus fails its suite ({_worst(failures)}){example}; see {docs / 'index.html'}"
        )
    with artifact.create(out, stage="check_clean", config=config, inputs=inputs, code=Path(__file__)) as draft:
        report = {"suite": "clean", "success": True, "documents": statistics.height, "expectations": verdict.results}
        (draft.path / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        draft.statistics = {
            "documents": statistics.height,
            "expectations": len(verdict.results),
            "suite_sha256": suite_digest("clean"),
        }
    assert draft.manifest is not None
    return draft.manifest


def _statistics(source: Path, licences: tuple[str, ...], events: Events, total: int) -> pl.DataFrame:
    """Document statistics of an artifact, computed a row group at a time."""
    done, frames = 0, []
    for _, _, group in row_groups(source):
        frames.append(document_statistics(group, licences))
        done += group.height
        events.progress(done, total, "documents")
    return pl.concat(frames)


def _counts(broken: pl.DataFrame) -> dict[str, int]:
    """Documents by the rule they break, by rule."""
    return dict(sorted(broken["rule"].value_counts().iter_rows()))


def _worst(by_rule: dict[str, int]) -> str:
    """The three rules broken most, for one line."""
    worst = sorted(by_rule.items(), key=lambda item: (-item[1], item[0]))[:3]
    return ", ".join(f"{rule} {count}" for rule, count in worst)


if __name__ == "__main__":
    if sys.argv[1:2] == ["check_clean"]:
        main("check_clean", CheckCleanConfig, check_clean, sys.argv[2:])
    main("check_raw", CheckRawConfig, check_raw, sys.argv[2:] if sys.argv[1:2] == ["check_raw"] else sys.argv[1:])
