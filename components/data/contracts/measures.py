"""What is measured of a document: one number or flag per text, as polars expressions over its columns.

The suites of check, the filters of clean and explain all judge these columns, never the texts themselves. Lengths and
shares are in characters; the share of an empty text is 0.
"""

import numpy as np
import polars as pl

from components.data.documents.document import document_ids
from components.data.documents.licences import refused

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

# Runs of what only programs read: base64 (two slashes at most in a row: rulers in comments have more), escaped bytes
# and characters, lists of hexadecimal numbers and of bytes.
_ENCODED = (
    r"(?:/{0,2}[A-Za-z0-9+]){64,}={0,2}"
    r"|(?:\\x[0-9a-fA-F]{2}){8,}|(?:\\u[0-9a-fA-F]{4}){8,}|(?:\\[0-7]{1,3}){8,}"
    r"|(?:0[xX][0-9a-fA-F]{1,16}[uUlL]{0,3}\s*,\s*){8,}|(?:[0-9]{1,3}\s*,\s*){64,}"
)
# A run without a digit is a word or a path; of base64 it would be one in 50,000.
_ENCODED_RUNS = TEXT.str.extract_all(_ENCODED).list.eval(pl.element().filter(pl.element().str.contains("[0-9]")))
ENCODED_SHARE = _ENCODED_RUNS.list.join("").str.len_chars().cast(pl.Int64) / CHARACTERS.clip(1)
_LONG_WORD = r"[!-~]{128,}"
# Bits per byte of such a word: random base64 has 5.6 at this length, and more the longer it is; of 4,300 Python files
# none has a word above 5.3 that a person wrote, and links to commits reach 5.0.
_MAX_WORD_ENTROPY = 5.3


def high_entropy_share(texts: pl.Series) -> pl.Series:
    """Share of each text's characters in words of 128 ASCII characters and more that look random, from 0 to 1.

    Catches encodings that have no alphabet of their own to be known by, as base85. Only texts with such a word cost.
    """
    frame = texts.alias("text").to_frame().with_row_index("row")
    words = frame.filter(TEXT.str.contains(_LONG_WORD)).select("row", word=TEXT.str.extract_all(_LONG_WORD))
    words = words.explode("word").with_columns(size=pl.col("word").str.len_bytes())
    entropy = pl.Series([_entropy(word) for word in words["word"]], dtype=pl.Float64)
    random = words.filter(entropy > _MAX_WORD_ENTROPY).group_by("row").agg(pl.col("size").sum())
    joined = frame.join(random, on="row", how="left", maintain_order="left")
    return joined.select((pl.col("size").fill_null(0) / CHARACTERS.clip(1)).alias("high_entropy_share")).to_series()


def _entropy(word: str) -> float:
    """Shannon entropy of the bytes of an ASCII word, in bits per byte."""
    counts = np.bincount(np.frombuffer(word.encode(), np.uint8))
    shares = counts[counts > 0] / len(word)
    return float(-(shares * np.log2(shares)).sum())


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


def _outside(expressions: pl.Series, allowed: tuple[str, ...]) -> pl.Series:
    """For each licence the ids that keep it out, comma separated; null when it is let in."""
    verdicts: dict[str | None, str | None] = {None: "no licence"}
    for expression in expressions.drop_nulls().unique():
        try:
            verdicts[expression] = ", ".join(refused(expression, allowed)) or None
        except ValueError:
            verdicts[expression] = expression or "no licence"
    return pl.Series("licence_outside", [verdicts[each] for each in expressions], dtype=pl.String)
