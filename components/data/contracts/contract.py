"""A contract: a suite with its bounds, and what becomes of rows that break it. Any stage may hold its output to one.

    contract = Contract("tokens", config.contract, events)      # Great Expectations loads beside the stage's work
    ...
    verdict = contract.require(statistics, where=source)
    contract.write_report(verdict, draft.path)

Covers: judging, Data Docs below the state directory (they hold times, so they are no part of an artifact), metrics,
contract.json for the artifact, the one line of a failure.  Not covered: what is done with rows that are quarantined,
which is check_raw's; changes against an earlier cycle, which is components.data.contracts.drift's.
"""

import importlib
import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from components.core.config import StepConfig, read_settings
from components.core.errors import DataError
from components.core.events import Events
from components.data.contracts.rules import bounds, is_row_level, read_suite, rule_of, suite_digest, tolerated

REPORT = "contract.json"
_AGGREGATE = "column_mean_to_be_between"
Judge = Callable[..., dict[str, dict[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a suite found.

    judged   how many rows there were
    results  one entry per expectation: rule, expectation, success, and its figures
    rows     row, rule, value for every row that fails a row-level expectation, also within what `mostly` lets off
    failed   the rules that failed: without their `mostly`, or of the whole table
    """

    judged: int
    results: list[dict[str, Any]]
    rows: pl.DataFrame
    failed: list[str]

    @property
    def failed_rules(self) -> list[str]:
        """Failed rules for which no single row is to blame."""
        blamed = set(self.rows["rule"])
        return [rule for rule in self.failed if rule not in blamed]

    def by_rule(self) -> dict[str, int]:
        """Rows by the rule they break."""
        return dict(sorted(self.rows["rule"].value_counts().iter_rows()))


class Contract:
    """A suite and the bounds of its stage, ready to judge once Great Expectations is loaded, which starts here.

    `parameters` are bounds that the stage only knows when it runs (the size of a vocabulary). Raises ConfigError when
    `mostly` names no rule of the suite.
    """

    def __init__(
        self, suite: str, config: StepConfig, events: Events, parameters: dict[str, Any] | None = None
    ) -> None:
        self.suite = suite
        self._mostly = tolerated(suite, config)
        self._parameters = bounds(config) | (parameters or {})
        self._events = events
        pool = ThreadPoolExecutor(max_workers=1)
        self._judge: Future[Judge] = pool.submit(_load_judge)
        pool.shutdown(wait=False)

    @property
    def docs(self) -> Path:
        """Where the Data Docs of this stage are written."""
        return read_settings().state / "docs" / self._events.stage

    def judge(self, statistics: pl.DataFrame) -> Verdict:
        """What the suite finds, with Data Docs and metrics; contract.json beside the Data Docs says it of a stage that
        goes on to fail, too. Raises DataError when a rule cannot be judged at all."""
        suite = read_suite(self.suite)
        if statistics.is_empty():  # no rows have no mean, and only the count of rows has something to say about them
            suite["expectations"] = [each for each in suite["expectations"] if not each["type"].endswith(_AGGREGATE)]
        answers = self._judge.result()(statistics, suite, self._parameters, self._mostly, self.docs)
        verdict = _verdict(self.suite, suite, statistics, answers)
        self._events.metrics(
            {
                "contract/rows": statistics.height,
                "contract/failed_rules": len(verdict.failed),
                **{f"contract/failing/{rule}": count for rule, count in verdict.by_rule().items()},
            }
        )
        self.write_report(verdict, self.docs)
        return verdict

    def require(self, statistics: pl.DataFrame, *, where: Path) -> Verdict:
        """Judge. Raises DataError with the rules that failed and an example, `where` as the culprit's place."""
        verdict = self.judge(statistics)
        if verdict.failed:
            raise DataError(f"{where}: {self.complaint(verdict, statistics)}")
        return verdict

    def complaint(self, verdict: Verdict, statistics: pl.DataFrame) -> str:
        """The failed rules with their counts, the first row that breaks one of them, and where to read more."""
        counts = {**dict.fromkeys(verdict.failed, 1), **verdict.by_rule()}
        failures = {rule: counts[rule] for rule in verdict.failed}
        text = f"fails its suite {self.suite} ({worst(failures)})"
        broken = verdict.rows.filter(pl.col("rule").is_in(verdict.failed))
        if broken.height:
            row, rule, value = broken.row(0)
            text += f"; first {_label(statistics, row)} ({rule}: {value})"
        else:
            rule = verdict.failed[0]
            (observed,) = (each.get("observed_value") for each in verdict.results if each["rule"] == rule)
            text += f"; found {observed}"
        note = next(each["notes"] for each in read_suite(self.suite)["expectations"] if rule_of(each) == rule)
        return f"{text}; needed: {note.rstrip('.')}; see {self.docs / 'index.html'}"

    def write_report(self, verdict: Verdict, directory: Path) -> None:
        """contract.json: every rule with its figures; no times, so that it may stand in an artifact."""
        report = {
            "suite": self.suite,
            "suite_sha256": suite_digest(self.suite),
            "success": not verdict.failed,
            "rows": verdict.judged,
            "expectations": verdict.results,
        }
        (directory / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _load_judge() -> Judge:
    """Great Expectations' judge; three seconds of import, which a stage spends on its own work meanwhile."""
    judge: Judge = importlib.import_module("components.data.contracts.expectations").validate
    return judge


def worst(counts: dict[str, int]) -> str:
    """The three largest counts, for one line."""
    largest = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:3]
    return ", ".join(f"{rule} {count}" for rule, count in largest)


def _verdict(name: str, suite: dict[str, Any], statistics: pl.DataFrame, answers: dict[str, dict[str, Any]]) -> Verdict:
    """Great Expectations' answers by rule in the order of the suite's file."""
    rows = pl.DataFrame(schema={"row": pl.UInt32, "order": pl.Int64, "rule": pl.String, "value": pl.String})
    results, failed = [], []
    for order, expectation in enumerate(suite["expectations"]):
        rule = rule_of(expectation)
        result = answers[rule]
        if result["exception"]:
            raise DataError(f"suite {name}: rule {rule} could not be judged: {result['exception']}")
        results.append(
            {"rule": rule, "notes": expectation["notes"], "expectation": expectation["type"], **result["summary"]}
        )
        if not result["success"]:
            failed.append(rule)
        broken = pl.Series("row", result["rows"], dtype=pl.UInt32)
        column = expectation["kwargs"].get("column", "id") if is_row_level(expectation) else _first(expectation)
        if column is not None and len(broken):
            rows.extend(
                pl.DataFrame({"row": broken, "value": statistics[column].gather(broken).cast(pl.String)}).select(
                    "row", pl.lit(order, dtype=pl.Int64).alias("order"), pl.lit(rule).alias("rule"), "value"
                )
            )
    return Verdict(
        judged=statistics.height, results=results, rows=rows.sort("row", "order").drop("order"), failed=failed
    )


def _first(expectation: dict[str, Any]) -> str | None:
    """The column whose value stands for a row that several columns condemn together."""
    columns: list[str] = expectation["kwargs"].get("column_list", [])
    return columns[0] if columns else None


def _label(statistics: pl.DataFrame, row: int) -> str:
    """What a person knows a row by: its path, else its name or id, else its number."""
    for column in ("path", "name", "id"):
        if column in statistics.columns and (value := statistics[column][row]) is not None:
            return str(value)
    return f"row {row}"
