"""The evaluation suites as files: read, filled with a stage's bounds, and judged row by row in columns.

The stages hand a suite to Great Expectations, which also writes the Data Docs; `violations` judges the row-level
expectations alone, for a person who asks about a few files and would not wait for that import.
"""

import json
from pathlib import Path
from typing import Any

import polars as pl

from components.core.artifact import sha256_of
from components.core.config import StepConfig

_DIRECTORY = Path(__file__).with_name("suites")


def suite_path(name: str) -> Path:
    """The file of a suite: raw or clean."""
    return _DIRECTORY / f"{name}.json"


def suite_digest(name: str) -> str:
    """sha256 of a suite's file, hex: rules are an input like code is."""
    return sha256_of(suite_path(name))


def read_suite(name: str) -> dict[str, Any]:
    """A suite as its file states it, bounds still as {"$PARAMETER": name}."""
    suite: dict[str, Any] = json.loads(suite_path(name).read_text(encoding="utf-8"))
    return suite


def bounds(config: StepConfig) -> dict[str, Any]:
    """The values that a suite's $PARAMETER names stand for: the parameters of its stage."""
    return config.model_dump(mode="json")


def violations(statistics: pl.DataFrame, name: str, config: StepConfig) -> pl.DataFrame:
    """row, rule, value: one line for every row-level expectation that a document fails, by row, then in suite order.

    Table-level expectations (a count of rows, uniqueness) say nothing about a document alone and are left out.
    """
    found = []
    for order, expectation in enumerate(read_suite(name)["expectations"]):
        kwargs = {key: _fill(value, bounds(config)) for key, value in expectation["kwargs"].items()}
        broken = _broken(expectation["type"], kwargs)
        if broken is None:
            continue
        found.append(
            statistics.with_row_index("row")
            .filter(broken)
            .select(
                "row",
                pl.lit(order).alias("order"),
                pl.lit(expectation["meta"]["rule"]).alias("rule"),
                pl.col(kwargs["column"]).cast(pl.String).alias("value"),
            )
        )
    return pl.concat(found).sort("row", "order").drop("order")


def _fill(value: Any, parameters: dict[str, Any]) -> Any:
    return parameters[value["$PARAMETER"]] if isinstance(value, dict) else value


def _broken(kind: str, kwargs: dict[str, Any]) -> pl.Expr | None:
    """True where a row fails an expectation. As in Great Expectations, null fails only `not_be_null`."""
    if "column" not in kwargs:
        return None
    column = pl.col(kwargs["column"])
    match kind:
        case "expect_column_values_to_not_be_null":
            return column.is_null()
        case "expect_column_values_to_be_null":
            return column.is_not_null()
        case "expect_column_values_to_be_in_set":
            return ~column.is_in(kwargs["value_set"])
        case "expect_column_values_to_match_regex":
            return ~column.str.contains(kwargs["regex"])
        case "expect_column_values_to_be_between":
            outside = pl.lit(False)
            if (low := kwargs.get("min_value")) is not None:
                outside = outside | (column < low)
            if (high := kwargs.get("max_value")) is not None:
                outside = outside | (column > high)
            return outside
        case _:
            return None
