"""What is measured of a document: one number or flag per text, as polars expressions over its columns.

The suites of check, the filters of clean and explain all judge these columns, never the texts themselves. Lengths and
shares are in characters; the share of an empty text is 0.
"""

import polars as pl

from components.data.documents import document_ids
from components.data.licences import refused

TEXT = pl.col("text")
CHARACTERS = TEXT.str.len_chars().cast(pl.Int64)
LINES = TEXT.str.count_matches("\n", literal=True).cast(pl.Int64) + 1
LINE_CHARACTERS = TEXT.str.split("\n").list.eval(pl.element().str.len_chars()).list.max().cast(pl.Int64)
MEAN_LINE_CHARACTERS = (CHARACTERS - LINES + 1) / LINES


def share(pattern: str) -> pl.Expr:
    """Share of a text's characters that match a pattern of one character, from 0 to 1."""
    return (TEXT.str.count_matches(pattern) / CHARACTERS.clip(1)).fill_null(0.0)


# Marks count with the letters they stand on: half of a text in an Indic script is marks.
ALPHANUMERIC_SHARE = 1.0 - TEXT.str.count_matches(r"[^\pL\pM\pN]") / CHARACTERS.clip(1)


def document_statistics(frame: pl.DataFrame, licences: tuple[str, ...]) -> pl.DataFrame:
    """The statistics that the suites judge, one row per document in the order of the frame, without its text.

    id, path, package, licence, language, source, redactions (where clean counted them), and: text_bytes; bytes_match
    and id_match (flags: the columns state what the text is); nul_characters; replacement_share; control_share; lines;
    mean_line_characters; max_line_characters; alphanumeric_share; licence_outside (the ids of the licence that the
    allow list lacks; null when it is let in). Null texts have null
    statistics.
    """
    return frame.with_columns(document_ids(frame["text"]).alias("computed_id")).select(
        "id",
        "path",
        "package",
        "licence",
        "language",
        "source",
        *(name for name in ("redactions",) if name in frame.columns),
        TEXT.str.len_bytes().cast(pl.Int64).alias("text_bytes"),
        TEXT.str.contains(r"\S").alias("has_text"),
        (pl.col("bytes") == TEXT.str.len_bytes()).alias("bytes_match"),
        (pl.col("id") == pl.col("computed_id")).alias("id_match"),
        TEXT.str.count_matches("\0", literal=True).cast(pl.Int64).alias("nul_characters"),
        share("\ufffd").alias("replacement_share"),
        share(r"[\x01-\x08\x0e-\x1f\x7f]").alias("control_share"),
        LINES.alias("lines"),
        MEAN_LINE_CHARACTERS.alias("mean_line_characters"),
        LINE_CHARACTERS.alias("max_line_characters"),
        ALPHANUMERIC_SHARE.alias("alphanumeric_share"),
        _outside(frame["licence"], licences),
    )


def _outside(found: pl.Series, allowed: tuple[str, ...]) -> pl.Series:
    """For each licence the ids that keep it out, comma separated; null when it is let in."""
    verdicts: dict[str | None, str | None] = {None: "no licence"}
    for expression in found.drop_nulls().unique():
        try:
            verdicts[expression] = ", ".join(refused(expression, allowed)) or None
        except ValueError:
            verdicts[expression] = expression or "no licence"
    return pl.Series("licence_outside", [verdicts[each] for each in found], dtype=pl.String)
