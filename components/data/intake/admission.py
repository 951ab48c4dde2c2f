"""Whether a document of any source may enter: a text of a sane size and path, a licence let in, nobody opted out.

Pure functions over columns: each takes a batch as its source gave it and answers with the rows that may enter beside
those that may not, each with its reason and its detail.
"""

from collections.abc import Sequence

import polars as pl

from components.data.documents.document import document_ids
from components.data.documents.licences import judge
from components.data.intake import opt_out
from components.data.sources.reading.document_batch import BATCH_SCHEMA, LEFT_SCHEMA

# A path is a label, and a label that climbs out of its source or hides characters is somebody's attempt at something.
_UNSAFE_PATH = r"^[/\\]|^[A-Za-z]:[/\\]|(?:^|[/\\])\.\.(?:[/\\]|$)|[\x00-\x1f\x7f]"
# What Linux lets a path have.
_LONGEST_PATH_BYTES = 4_096


def admit(
    documents: pl.DataFrame, *, max_document_bytes: int, licences: tuple[str, ...], entries: Sequence[opt_out.Entry]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Documents that may enter, with `id` and `bytes` and an SPDX `licence`, and those that may not (LEFT_SCHEMA)."""
    frame = documents.select(BATCH_SCHEMA.names()).cast(BATCH_SCHEMA)
    frame = frame.with_columns(bytes=pl.col("text").str.len_bytes().cast(pl.Int64))
    frame, unfit = _parted(frame, *_unfit(max_document_bytes))
    frame, unlicensed = _licensed(frame, licences)
    frame = frame.with_columns(document_ids(frame["text"]))
    frame, refused = _not_opted_out(frame, entries)
    return frame, pl.concat([unfit, unlicensed, refused])


def _unfit(max_document_bytes: int) -> tuple[pl.Expr, pl.Expr]:
    """Reason and detail of texts and paths that no document can have; a null reason where all is well."""
    text, path = pl.col("text"), pl.col("path")
    reason = (
        pl.when(text.is_null())
        .then(pl.lit("no_text"))
        .when(pl.col("bytes") > max_document_bytes)
        .then(pl.lit("too_large"))
        .when(~text.str.contains(r"\S"))
        .then(pl.lit("empty"))
        .when(path.is_null() | path.str.contains(_UNSAFE_PATH) | (path.str.len_bytes() > _LONGEST_PATH_BYTES))
        .then(pl.lit("unsafe_path"))
    )
    detail = pl.when(pl.col("bytes") > max_document_bytes).then(
        pl.format("{} bytes, allowed {}", pl.col("bytes"), pl.lit(max_document_bytes))
    )
    return reason, detail


def _licensed(frame: pl.DataFrame, allowed: tuple[str, ...]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The documents under a licence of the allow list, as SPDX."""
    declared = frame["licence"].unique().to_list()
    verdicts = [judge(each, allowed) for each in declared]
    judged = pl.DataFrame(
        {
            "licence": pl.Series(declared, dtype=pl.String),
            "spdx": pl.Series([each.licence for each in verdicts], dtype=pl.String),
            "verdict": pl.Series([each.reason or None for each in verdicts], dtype=pl.String),
            "why": pl.Series([each.detail for each in verdicts], dtype=pl.String),
        }
    )
    frame = frame.join(judged, on="licence", how="left", nulls_equal=True).with_columns(licence=pl.col("spdx"))
    kept, left = _parted(frame, pl.col("verdict"), pl.col("why"))
    return kept.drop("spdx", "verdict", "why"), left


def _not_opted_out(frame: pl.DataFrame, entries: Sequence[opt_out.Entry]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The documents that nobody asked to be left out; the others with the entry that they fit."""
    if not entries:
        return frame, pl.DataFrame(schema=LEFT_SCHEMA)
    fits = opt_out.opted_out(entries).is_not_null()
    frame = frame.with_columns(fits.alias("fits"))
    kept, out = frame.filter(~pl.col("fits")).drop("fits"), frame.filter(pl.col("fits"))
    if out.is_empty():
        return kept, pl.DataFrame(schema=LEFT_SCHEMA)
    # Few rows fit any entry, so asking every entry about them is cheap.
    which = pl.coalesce(
        *(pl.when(opt_out.opted_out([entry]).is_not_null()).then(pl.lit(shown(entry))) for entry in entries)
    )
    return kept, out.select(shown_path(), reason=pl.lit("opt_out"), detail=which)


def shown(entry: opt_out.Entry) -> str:
    """An opt-out entry in one line, without what is for people."""
    names = ("id", "author", "repository", "path")
    return ", ".join(f"{name}: {value}" for name, value in zip(names, entry.rule, strict=True) if value is not None)


def _parted(frame: pl.DataFrame, reason: pl.Expr, detail: pl.Expr) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows without a reason, and those with one as LEFT_SCHEMA."""
    frame = frame.with_columns(reason.alias("reason"), detail.fill_null("").alias("detail"))
    left = frame.filter(pl.col("reason").is_not_null()).select(shown_path(), "reason", "detail")
    return frame.filter(pl.col("reason").is_null()).drop("reason", "detail"), left.cast(LEFT_SCHEMA)


def shown_path() -> pl.Expr:
    """The column `path` as one line of at most 500 characters, whatever is in it."""
    return pl.col("path").fill_null("").str.head(500).str.replace_all(r"[\x00-\x1f\x7f]", "\ufffd").alias("path")


def shown_detail() -> pl.Expr:
    """The column `detail` as one line of at most 200 characters, whatever it quotes."""
    return pl.col("detail").fill_null("").str.head(200).str.replace_all(r"[\x00-\x1f\x7f]", "\ufffd").alias("detail")
