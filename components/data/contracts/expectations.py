"""Great Expectations at work on a suite: one ephemeral context, one batch of statistics, Data Docs on disk.

Slow to import (3 s), so components.data.contracts.contract loads it in a thread while a stage computes its statistics.
Covers: figures without times, so that they may stand in an artifact.  Not covered: texts, which it never sees.
"""

import json
from pathlib import Path
from typing import Any

import great_expectations as gx
import polars as pl

from components.core.errors import one_line
from components.data.contracts.rules import columns_of, is_row_level, parameters_of, rule_of


def validate(
    statistics: pl.DataFrame, suite: dict[str, Any], parameters: dict[str, Any], mostly: dict[str, float], docs: Path
) -> dict[str, dict[str, Any]]:
    """By rule: success, summary (figures without times), rows (numbers of failing rows), exception.

    Great Expectations answers in an order of its own, so a result is known by the rule that its meta names.
    `mostly` is the share of rows that has to pass, by rule; all of them where a rule is not named.
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
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset(suite["name"])
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(
            name=suite["name"],
            data=asset.add_batch_definition_whole_dataframe("all"),
            suite=context.suites.add(
                gx.ExpectationSuite(name=suite["name"], expectations=_expectations(suite, mostly))
            ),
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
    frame = statistics.select(columns_of(suite)).with_row_index("row").to_pandas()
    used = {name: parameters[name] for name in dict.fromkeys(parameters_of(suite))}
    outcome = checkpoint.run(batch_parameters={"dataframe": frame}, expectation_parameters=used)
    (validation,) = outcome.run_results.values()
    return {rule_of(result.expectation_config.to_json_dict()): _plain(result) for result in validation.results}


def _expectations(suite: dict[str, Any], mostly: dict[str, float]) -> list[dict[str, Any]]:
    """The suite's expectations with the shares that are let off."""
    return [
        each | {"kwargs": each["kwargs"] | {"mostly": mostly[rule_of(each)]}}
        if is_row_level(each) and rule_of(each) in mostly
        else each
        for each in suite["expectations"]
    ]


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
        "exception": one_line(raised[0]) if raised else "",
    }
