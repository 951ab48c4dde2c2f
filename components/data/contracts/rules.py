"""The suites as files: read, filled with a stage's bounds, and judged row by row in columns.

A suite states what one boundary of the graph lets through: raw, clean, tokens, instructions, preferences, feedback.
Great Expectations judges it where a stage has time for its import (components.data.contracts.contract) and writes the
Data Docs; `violations` judges the row-level expectations alone, in milliseconds, for whoever asks about a few rows.
"""

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from components.core.artifact import sha256_of
from components.core.config import StepConfig
from components.core.errors import ConfigError

_DIRECTORY = Path(__file__).with_name("suites")
# The kinds of expectation that hold for each row alone, so that a share of the rows may be let off.
_ROW_LEVEL = "expect_column_values_"


def suite_path(name: str) -> Path:
    """The file of a suite, by the name of its boundary."""
    return _DIRECTORY / f"{name}.json"


def suite_names() -> list[str]:
    """The boundaries that have a suite, sorted."""
    return sorted(path.stem for path in _DIRECTORY.glob("*.json"))


def suite_digest(name: str) -> str:
    """sha256 of a suite's file, hex: rules are an input like code is."""
    return sha256_of(suite_path(name))


def read_suite(name: str) -> dict[str, Any]:
    """A suite as its file states it, bounds still as {"$PARAMETER": name}."""
    suite: dict[str, Any] = json.loads(suite_path(name).read_text(encoding="utf-8"))
    return suite


def rule_of(expectation: Mapping[str, Any]) -> str:
    """The name that a person knows an expectation by."""
    return str(expectation["meta"]["rule"])


def is_row_level(expectation: Mapping[str, Any]) -> bool:
    """Whether the expectation blames single rows."""
    return str(expectation["type"]).startswith(_ROW_LEVEL)


def parameters_of(value: Any) -> Iterator[str]:
    """The names that stand as {"$PARAMETER": name} anywhere in a suite or a part of it."""
    if isinstance(value, dict):
        if isinstance(name := value.get("$PARAMETER"), str):
            yield name
        for each in value.values():
            yield from parameters_of(each)
    elif isinstance(value, list):
        for each in value:
            yield from parameters_of(each)


def columns_of(suite: Mapping[str, Any]) -> list[str]:
    """The columns that a suite looks at, in the order of its rules."""
    columns: dict[str, None] = {}
    for expectation in suite["expectations"]:
        kwargs = expectation["kwargs"]
        columns |= dict.fromkeys([*([kwargs["column"]] if "column" in kwargs else []), *kwargs.get("column_list", [])])
    return list(columns)


def bounds(config: StepConfig) -> dict[str, Any]:
    """The values that a suite's $PARAMETER names stand for: the parameters of its stage."""
    return config.model_dump(mode="json")


def tolerated(name: str, config: StepConfig) -> dict[str, float]:
    """The share of rows that must pass a rule, for the rules of a suite that the config's `mostly` names.

    Raises ConfigError for a name that is no row-level rule of the suite.
    """
    shares: dict[str, float] = dict(getattr(config, "mostly", {}))
    rules = [rule_of(each) for each in read_suite(name)["expectations"] if is_row_level(each)]
    for rule in shares:
        if rule not in rules:
            near = difflib.get_close_matches(rule, rules, n=1, cutoff=0.5)
            mend = f"did you mean {near[0]}?" if near else f"there are: {', '.join(rules)}"
            raise ConfigError(f"mostly: {rule} is not a row-level rule of the suite {name}; {mend}")
    return shares


def violations(statistics: pl.DataFrame, name: str, config: StepConfig) -> pl.DataFrame:
    """row, rule, value: one line for every row-level expectation that a row fails, by row, then in suite order.

    Table-level expectations (a count of rows, uniqueness) say nothing about a row alone and are left out. `mostly` is
    not applied: what it lets off is still told.
    """
    parameters = bounds(config)
    failures = []
    for order, expectation in enumerate(read_suite(name)["expectations"]):
        if set(parameters_of(expectation)) - set(parameters):
            continue  # a bound that only the stage itself knows
        kwargs = {key: _fill(value, parameters) for key, value in expectation["kwargs"].items()}
        broken = _broken(expectation["type"], kwargs)
        if broken is None:
            continue
        failures.append(
            statistics.with_row_index("row")
            .filter(broken)
            .select(
                "row",
                pl.lit(order).alias("order"),
                pl.lit(rule_of(expectation)).alias("rule"),
                pl.col(kwargs["column"]).cast(pl.String).alias("value"),
            )
        )
    return pl.concat(failures).sort("row", "order").drop("order")


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
