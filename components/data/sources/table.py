"""Tables as documents: which column is which, in the ready-made shapes of published data sets or as the config says.

Covers: The Stack (v1, smol and the column names of v2), StackExchange as question and answers or as one text, our own
names; licences as a list of names; nested columns; texts as bytes.
Not covered: The Stack v2's contents, which are not in its table.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import polars as pl

from components.data.languages import language_of
from components.data.sources.batch import BATCH_SCHEMA, Batch, left_rows
from components.data.sources.config import TableSource

# For each shape and field the names that its versions use; the first that a table has is meant.
_PLAIN = {name: (name,) for name in BATCH_SCHEMA}
_SHAPES: Mapping[str, Mapping[str, Sequence[str]]] = {
    "plain": _PLAIN,
    "the-stack": {
        "text": ("content",),
        "path": ("max_stars_repo_path", "path"),
        "package": ("max_stars_repo_name", "repo_name", "repository_name"),
        "version": ("max_stars_repo_head_hexsha", "revision_id"),
        "licence": ("max_stars_repo_licenses", "detected_licenses", "licenses", "license"),
        "language": ("lang", "language"),
        "author": (),
    },
    "stackexchange": {
        "text": ("text",),
        "path": ("meta.url", "qid"),
        "package": ("meta.source",),
        "version": ("date",),
        "licence": ("license",),
        "language": (),
        "author": (),
    },
}
QUESTION, ANSWERS = "question", "answers"
ANSWERS_TYPE = pl.List(
    pl.Struct({"answer_id": pl.Int64, "pm_score": pl.Int64, "selected": pl.Boolean, "text": pl.String})
)
_LANGUAGE_NAMES = {"c++": "cpp", "c#": "csharp", "bash": "shell", "jupyter notebook": "jupyter"}


class ColumnError(Exception):
    """Why a table has no texts that can be read: (reason, detail)."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def columns_of(config: TableSource, available: Collection[str]) -> dict[str, str]:
    """The column behind each field of a document, for the fields that the table has; a dot goes into a struct.

    Raises ColumnError (no_column) when a column that the config names, or the text, is not there.
    """
    found: dict[str, str] = {}
    for field in BATCH_SCHEMA:
        named = getattr(config.columns, field)
        for name in (named,) if named else _SHAPES[config.shape][field]:
            if name in available or name.split(".")[0] in available:
                found[field] = name
                break
        else:
            if named:
                raise ColumnError("no_column", f"column {named} is absent; columns found: {_listed(available)}")
    if "text" not in found and not composes(config, available):
        wanted = config.columns.text or " or ".join(_SHAPES[config.shape]["text"])
        raise ColumnError("no_column", f"column {wanted} is absent, needed text; columns found: {_listed(available)}")
    return found


def composes(config: TableSource, available: Collection[str]) -> bool:
    """Whether texts are put together from a question and its answers."""
    return config.shape == "stackexchange" and {QUESTION, ANSWERS} <= set(available) and "text" not in available


def needed(config: TableSource, available: Collection[str]) -> list[str]:
    """The top-level columns to read of a table. Raises ColumnError as columns_of does."""
    names = {name if name in available else name.split(".")[0] for name in columns_of(config, available).values()}
    return sorted(names | ({QUESTION, ANSWERS} if composes(config, available) else set()))


def documents_of(frame: pl.DataFrame, config: TableSource, *, name: str, first_row: int = 0) -> Batch:
    """Rows as documents. `name` is what the table is called, and with the row's number the path of rows without one.

    Raises ColumnError (no_column, wrong_type) when the text cannot be text.
    """
    columns = columns_of(config, frame.columns)
    if "text" not in columns:
        frame = frame.with_columns(question_and_answers(frame))
        columns["text"] = "composed_text"
    row_path = pl.format("{}:{}", pl.lit(name), pl.int_range(pl.len()) + first_row)
    defaults = {
        "path": row_path,
        "package": pl.lit(config.package or name.rsplit("/", 1)[-1].split(".")[0]),
        "version": pl.lit(config.version),
        "licence": pl.lit(config.licence, dtype=pl.String),
        "language": pl.lit(config.language, dtype=pl.String),
        "author": pl.lit(None, dtype=pl.String),
    }
    frame, undecodable = _decoded(frame, columns["text"])
    values = {field: _text_of(frame, column, field) for field, column in columns.items()}
    selected = frame.select(
        values["text"].alias("text"),
        *(
            (pl.coalesce(values[field], default) if field in values else default).alias(field)
            for field, default in defaults.items()
        ),
    )
    left = [(path, "not_utf8", "") for path in selected.filter(undecodable)["path"]]
    kept = selected.filter(~undecodable)
    kept = kept.with_columns(path=pl.col("path").str.strip_chars_start("/"), language=_languages(kept, config))
    return Batch(kept.select(BATCH_SCHEMA.names()), left_rows(left))


def _decoded(frame: pl.DataFrame, text: str) -> tuple[pl.DataFrame, pl.Series]:
    """Columns of bytes as text, null where they are no UTF-8; and True where the text is not, shape (rows,)."""
    undecodable = pl.repeat(False, frame.height, dtype=pl.Boolean, eager=True)
    for name, kind in frame.schema.items():
        if kind == pl.Binary:
            try:
                column = frame[name].cast(pl.String)
            except pl.exceptions.PolarsError:
                column = pl.Series(name, [_decoded_or_none(each) for each in frame[name]], dtype=pl.String)
            if name == text:
                undecodable = column.is_null() & frame[name].is_not_null()
            frame = frame.with_columns(column)
    return frame, undecodable


def _decoded_or_none(content: bytes | None) -> str | None:
    try:
        return None if content is None else content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _text_of(frame: pl.DataFrame, column: str, field: str) -> pl.Expr:
    """A column as text: a list of names is all of them."""
    expression, kind = _column(frame, column)
    if isinstance(kind, pl.List | pl.Array):
        names = expression.cast(pl.List(pl.String), strict=False)
        names = names.list.drop_nulls().list.unique().list.sort()
        return pl.when(names.list.len() > 0).then(names.list.join(" AND "))
    is_text = kind == pl.String or isinstance(kind, pl.Categorical | pl.Enum)
    if field == "text" and not is_text:
        raise ColumnError("wrong_type", f"column {column} is {kind}, needed text")
    return expression.cast(pl.String, strict=False)


def _column(frame: pl.DataFrame, column: str) -> tuple[pl.Expr, Any]:
    """The expression of a column, which may lie in structs, and its type."""
    if column in frame.columns:
        return pl.col(column), frame.schema[column]
    top, *below = column.split(".")
    expression = pl.col(top)
    kind: Any = frame.schema[top]
    for part in below:
        fields = dict(kind.to_schema()) if isinstance(kind, pl.Struct) else {}
        if part not in fields:
            return pl.lit(None, dtype=pl.String), pl.String()
        expression, kind = expression.struct.field(part), fields[part]
    return expression, kind


def question_and_answers(frame: pl.DataFrame) -> pl.Series:
    """One text a row: the question, then its answers, the accepted one first, then by score."""
    questions = frame.select(pl.col(QUESTION).cast(pl.String, strict=False), pl.col(ANSWERS)).with_row_index("row")
    answers = (
        questions.select("row", pl.col(ANSWERS).cast(ANSWERS_TYPE, strict=False))
        .explode(ANSWERS)
        .select("row", pl.col(ANSWERS).struct.unnest())
        .drop_nulls("text")
        .sort("row", "selected", "pm_score", "answer_id", descending=[False, True, True, False], nulls_last=True)
        .group_by("row", maintain_order=True)
        .agg(pl.col("text").str.join("\n\n"))
    )
    joined = questions.join(answers, on="row", how="left").sort("row")
    return joined.select(
        pl.concat_str(QUESTION, "text", separator="\n\n", ignore_nulls=True).alias("composed_text")
    ).to_series()


def _languages(frame: pl.DataFrame, config: TableSource) -> pl.Series:
    """The language of each row as documents name it: as stated, else by the suffix of its path."""
    suffixes = frame["path"].str.extract(r"(\.[^./\\]+)$").str.to_lowercase()
    known = {each: language_of(f"x{each}") for each in suffixes.unique() if each is not None}
    by_suffix = suffixes.replace_strict(known, default=None, return_dtype=pl.String)
    other = "text" if config.shape == "stackexchange" else "unknown"
    stated = frame["language"].str.to_lowercase().replace(_LANGUAGE_NAMES)
    return frame.select(pl.coalesce(stated, by_suffix, pl.lit(other)).alias("language")).to_series()


def _listed(names: Collection[str]) -> str:
    shown = sorted(names)[:20]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "")
