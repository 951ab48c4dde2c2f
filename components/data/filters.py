"""The filters of clean: one filter is one pure expression over a document's columns, and the reason it gives.

Covers: size, line lengths, share of letters and digits, Python that does not parse.
Not covered: natural language, generated code, quality scores.
"""

import ast
import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import polars as pl

from components.data.config import FilterConfig
from components.data.measures import ALPHANUMERIC_SHARE, LINE_CHARACTERS, MEAN_LINE_CHARACTERS, TEXT


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Drops a document for `reason` where `drops` is true; `detail` is the figure that decided, as text."""

    reason: str
    drops: pl.Expr
    detail: pl.Expr


def filters(config: FilterConfig) -> tuple[Filter, ...]:
    """The column filters in their order; the first that drops a document gives its reason."""
    size = TEXT.str.len_bytes()
    return (
        Filter(reason="too_small", drops=size < config.min_document_bytes, detail=size.cast(pl.String)),
        Filter(
            reason="mean_line_too_long",
            drops=config.max_mean_line_characters < MEAN_LINE_CHARACTERS,
            detail=MEAN_LINE_CHARACTERS.round(1).cast(pl.String),
        ),
        Filter(
            reason="line_too_long",
            drops=config.max_line_characters < LINE_CHARACTERS,
            detail=LINE_CHARACTERS.cast(pl.String),
        ),
        Filter(
            reason="few_alphanumeric",
            drops=config.min_alphanumeric_share > ALPHANUMERIC_SHARE,
            detail=ALPHANUMERIC_SHARE.round(4).cast(pl.String),
        ),
    )


def column_reasons(chosen: tuple[Filter, ...]) -> tuple[pl.Expr, pl.Expr]:
    """The columns reason and detail that the filters give together; null where every one lets a document pass."""
    reason, detail = pl.lit(None, dtype=pl.String), pl.lit(None, dtype=pl.String)
    for each in reversed(chosen):
        reason = pl.when(each.drops).then(pl.lit(each.reason)).otherwise(reason)
        detail = pl.when(each.drops).then(each.detail).otherwise(detail)
    return reason.alias("reason"), detail.alias("detail")


def syntax_error(text: str) -> str | None:
    """What this interpreter's parser says against a Python text, with the line; None when it parses.

    The text is parsed, never run. Null bytes and nesting deeper than the parser's stack count as errors.
    """
    try:
        ast.parse(text)
    except SyntaxError as error:
        return f"{error.msg} (line {error.lineno})"
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        return f"{type(error).__name__}: {error}"
    return None


@contextmanager
def quiet_parser() -> Iterator[None]:
    """For parsing many texts: no warnings about their escapes, and no garbage collection, which takes a third of the
    time of building syntax trees and finds nothing in them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if enabled:
            gc.enable()


def apply_filters(frame: pl.DataFrame, config: FilterConfig) -> pl.DataFrame:
    """The frame with the columns reason and detail, null for documents that stay.

    Syntax comes last, being the dearest, and only for Python.
    """
    judged = frame.with_columns(*column_reasons(filters(config)))
    if not config.check_syntax:
        return judged
    candidates = judged["reason"].is_null() & (judged["language"] == "python")
    with quiet_parser():
        errors = [syntax_error(text) if parse else None for text, parse in zip(judged["text"], candidates, strict=True)]
    found = pl.Series("syntax", errors, dtype=pl.String)
    return judged.with_columns(
        pl.when(found.is_not_null()).then(pl.lit("syntax_error")).otherwise(pl.col("reason")).alias("reason"),
        pl.coalesce("detail", found).alias("detail"),
    )
