"""The filters of clean: one filter is one pure expression over a document's columns, and the reason it gives.

Covers: copies of other people's code, lock files and minified files by their paths; size; generated code; line
lengths; another language than the path says; encoded blobs; share of letters and digits; texts that do not parse.
Not covered: natural language, code that is generated but does not say so, quality scores.

An expression is over columns of the table or columns measured once per document. Cheap filters come first, and a column
is only measured for the documents that all filters before let stay.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from components.data.cleaning.generated import generated_marker
from components.data.cleaning.syntax import syntax
from components.data.config import FilterConfig
from components.data.contracts.measures import (
    ALPHANUMERIC_SHARE,
    ENCODED_SHARE,
    LINE_CHARACTERS,
    MEAN_LINE_CHARACTERS,
    TEXT,
    high_entropy_share,
)
from components.data.documents.path_patterns import any_of, slashed_column
from components.data.documents.programming_languages import CONTENT_LANGUAGE, is_foreign


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Drops a document for `reason` where `drops` is true; `detail` is the figure that decided, as text.

    `measures` gives the columns that both need beside those of the table; it sees only documents that still stay.
    """

    reason: str
    drops: pl.Expr
    detail: pl.Expr
    measures: Callable[[pl.DataFrame], pl.DataFrame] = lambda documents: documents


def filters(config: FilterConfig) -> tuple[Filter, ...]:
    """The filters that are on, in their order; the first that drops a document gives its reason."""
    return (*_of_paths(config), *_of_texts(config), *_of_syntax(config))


def apply_filters(frame: pl.DataFrame, config: FilterConfig) -> pl.DataFrame:
    """The frame with the columns reason and detail, null for documents that stay. Rows keep their order."""
    return _apply(frame, filters(config))


def refused_by_path(documents: pl.DataFrame, config: FilterConfig) -> pl.Series:
    """True for documents that a filter drops for their path alone, shape (rows,): a copy of the same text that lies
    elsewhere may stay."""
    return _apply(documents, _of_paths(config))["reason"].is_not_null()


def _apply(frame: pl.DataFrame, chosen: Sequence[Filter]) -> pl.DataFrame:
    staying = frame.with_row_index("_row")
    drops = [pl.DataFrame(schema={"_row": staying.schema["_row"], "reason": pl.String, "detail": pl.String})]
    for each in chosen:
        measured = each.measures(staying).with_columns(_drops=each.drops.fill_null(False))
        dropped = measured.filter("_drops").select(
            "_row", pl.lit(each.reason).alias("reason"), each.detail.cast(pl.String).alias("detail")
        )
        if dropped.height:
            drops.append(dropped)
            staying = staying.filter(~measured["_drops"])
    decided = pl.concat(drops)
    return frame.with_row_index("_row").join(decided, on="_row", how="left", maintain_order="left").drop("_row")


def _with(**columns: pl.Expr) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda documents: documents.with_columns(**columns)


def _of_paths(config: FilterConfig) -> list[Filter]:
    """Filters over paths, which cost nothing."""
    lists = {
        "vendored": any_of(config.vendored_paths),
        "lock_file": any_of(config.lock_files),
        "minified": any_of(config.minified_files),
    }
    path = slashed_column(pl.col("path"))
    return [
        Filter(reason=reason, drops=path.str.contains(pattern), detail=path.str.extract(f"({pattern})"))
        for reason, pattern in lists.items()
        if pattern is not None
    ]


def _of_texts(config: FilterConfig) -> list[Filter]:
    """Filters over what a text looks like, the cheapest first: from 800 MB/s on a core down to 110."""
    value, share, size = pl.col("_value"), pl.col("_value").round(4), TEXT.str.len_bytes()
    chosen = [Filter(reason="too_small", drops=size < config.min_document_bytes, detail=size)]
    if config.generated_lines:
        marker = generated_marker(config.generated_lines)
        chosen.append(
            Filter(reason="generated", drops=value.is_not_null(), detail=value, measures=_with(_value=marker))
        )
    if config.check_language:
        foreign = is_foreign(value, pl.col("language"))
        detail = pl.format("reads as {}, not {}", value, "language")
        chosen.append(
            Filter(reason="other_language", drops=foreign, detail=detail, measures=_with(_value=CONTENT_LANGUAGE))
        )
    chosen += [
        Filter(
            reason="mean_line_too_long",
            drops=value > config.max_mean_line_characters,
            detail=value.round(1),
            measures=_with(_value=MEAN_LINE_CHARACTERS),
        ),
        Filter(
            reason="line_too_long",
            drops=value > config.max_line_characters,
            detail=value,
            measures=_with(_value=LINE_CHARACTERS),
        ),
        Filter(
            reason="encoded",
            drops=value > config.max_encoded_share,
            detail=share,
            measures=_with(_value=ENCODED_SHARE),
        ),
        Filter(
            reason="high_entropy",
            drops=value > config.max_high_entropy_share,
            detail=share,
            measures=lambda documents: documents.with_columns(_value=high_entropy_share(documents["text"])),
        ),
        Filter(
            reason="few_alphanumeric",
            drops=value < config.min_alphanumeric_share,
            detail=share,
            measures=_with(_value=ALPHANUMERIC_SHARE),
        ),
    ]
    return chosen


def _of_syntax(config: FilterConfig) -> list[Filter]:
    """The filter over what the parsers say, the dearest: 12 MB/s on a core."""
    if not config.check_syntax:
        return []
    limit = (
        pl.when(pl.col("language").is_in(["c", "cpp"]))
        .then(pl.lit(config.max_error_share_c))
        .otherwise(pl.lit(config.max_error_share))
    )
    error, share = pl.col("parser_error"), pl.col("error_share")
    misplaced = pl.format("{} of the bytes have no place, the first in line {}", share.round(4), "error_line")
    return [
        Filter(
            reason="syntax_error",
            drops=error.is_not_null() | (share > limit),
            detail=pl.coalesce(error, misplaced, pl.lit("no parser came to an end")),
            measures=lambda documents: documents.hstack(
                syntax(documents["text"], documents["language"], documents["path"])
            ),
        )
    ]
