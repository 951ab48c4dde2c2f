"""Tables as documents: which column is which, in the ready-made shapes of published data sets or as the config says.

Covers: The Stack (v1, smol and the column names of v2), StackExchange as question and answers or as one text, our own
names; licences as a list of names; nested columns; texts as bytes.
Not covered: The Stack v2's contents, which are not in its table.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from components.data.documents.programming_languages import language_of
from components.data.sources.config import TableSource
from components.data.sources.reading.cells import CONTENT, ColumnError, content_of, label_of, question_and_answers
from components.data.sources.reading.document_batch import BATCH_SCHEMA, Batch, left_rows

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
_PLACE = "place"
# Of a row that cannot become a document, by its number: reason and detail.
Refusals = dict[int, tuple[str, str]]
# What becomes text by the column, and what value by value.
_STRINGS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
_RARE_STRINGS = (pa.types.is_string_view, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
_LANGUAGE_NAMES = {"c++": "cpp", "c#": "csharp", "bash": "shell", "jupyter notebook": "jupyter"}


def columns_of(config: TableSource, available: Collection[str]) -> dict[str, str]:
    """The column behind each field of a document, for the fields that the table has; a dot goes into a struct.

    Raises ColumnError (no_column) when a column that the config names, or the text, is not there.
    """
    columns: dict[str, str] = {}
    for field in BATCH_SCHEMA:
        named = getattr(config.columns, field)
        for name in (named,) if named else _SHAPES[config.shape][field]:
            if name in available or name.split(".")[0] in available:
                columns[field] = name
                break
        else:
            if named:
                raise ColumnError("no_column", f"column {named} is absent; columns found: {_listed(available)}")
    if "text" not in columns and not composes(config, available):
        wanted = config.columns.text or " or ".join(_SHAPES[config.shape]["text"])
        raise ColumnError("no_column", f"column {wanted} is absent, needed text; columns found: {_listed(available)}")
    return columns


def composes(config: TableSource, available: Collection[str]) -> bool:
    """Whether texts are put together from a question and its answers."""
    return config.shape == "stackexchange" and {QUESTION, ANSWERS} <= set(available) and "text" not in available


def needed(config: TableSource, schema: pa.Schema) -> list[str]:
    """The top-level columns to read of a table.

    Raises ColumnError as columns_of does, for a column that is there twice, and for a text that can be none.
    """
    columns = columns_of(config, schema.names)
    names = {name if name in schema.names else name.split(".")[0] for name in columns.values()}
    names |= {QUESTION, ANSWERS} if composes(config, schema.names) else set()
    for name in names:
        if (count := schema.names.count(name)) > 1:
            raise ColumnError("repeated_column", f"{count} columns are called {name}, needed one")
    if (column := columns.get("text")) and (kind := _type(schema, column)) is not None:
        _check_text(column, kind)
    return sorted(names)


def documents_of(batch: pa.RecordBatch, config: TableSource, *, name: str, first_row: int = 0) -> Batch:
    """Rows as documents; those with a value that is not what its field needs are left, by their path or `name:row`.

    Raises ColumnError (no_column, wrong_type) when the text cannot be text in any row.
    """
    columns = columns_of(config, batch.schema.names)
    refusals: Refusals = {}
    values: dict[str, pl.Series] = {}
    for field, column in columns.items():
        if (array := _array(batch, column)) is not None:
            if field == "text":
                _check_text(column, array.type)
            values[field] = texts_of(array, field, refusals)
    if "text" not in columns:
        pair = (batch.column(QUESTION), batch.column(ANSWERS))
        values["text"] = read_each(pair, question_and_answers, refusals)
    places = [f"{name}:{first_row + row}" for row in range(batch.num_rows)]
    absent = pl.Series([None] * batch.num_rows, dtype=pl.String)
    rows = pl.DataFrame({field: values.get(field, absent) for field in BATCH_SCHEMA} | {_PLACE: places})
    kept = rows.filter(~pl.int_range(pl.len()).is_in(list(refusals)))
    named = [path or place for path, place in zip(rows["path"], places, strict=True)]
    left = left_rows([(named[row], *refusals[row]) for row in sorted(refusals)])
    return Batch(described(kept.drop(_PLACE), config, name, kept[_PLACE]), left)


def described(rows: pl.DataFrame, config: TableSource, name: str, places: pl.Series) -> pl.DataFrame:
    """Rows of BATCH_SCHEMA with what they do not say of themselves: `places` for paths, the rest by the config.

    `name` is what the table is called.
    """
    defaults: dict[str, pl.Expr | pl.Series] = {
        "path": places,
        "package": pl.lit(config.package or name.rsplit("/", 1)[-1].split(".")[0]),
        "version": pl.lit(config.version),
        "licence": pl.lit(config.licence, dtype=pl.String),
        "language": pl.lit(config.language, dtype=pl.String),
    }
    rows = rows.with_columns(path=pl.col("path").str.strip_chars_start("/").replace("", None))
    rows = rows.with_columns(pl.coalesce(field, default).alias(field) for field, default in defaults.items())
    return rows.with_columns(language=_languages(rows, config)).select(BATCH_SCHEMA.names())


def is_plain_text(kind: pa.DataType) -> bool:
    """Whether a column of this type becomes text as a whole."""
    return any(check(kind) for check in _STRINGS)


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds text, or bytes that may be."""
    return any(
        check(kind.value_type if pa.types.is_dictionary(kind) else kind) for check in (*_STRINGS, *_RARE_STRINGS)
    )


def _check_text(column: str, kind: pa.DataType) -> None:
    """Raise ColumnError for a column in which no value can be text."""
    if not is_text(kind):
        raise ColumnError("wrong_type", f"column {column} is {str(kind)[:100]}, needed text")


def _array(batch: pa.RecordBatch, column: str) -> pa.Array | None:
    """A column, which may lie in structs; None where there is none."""
    if column in batch.schema.names:
        return batch.column(column)
    top, *below = column.split(".")
    array = batch.column(top)
    for part in below:
        if (place := _place(array.type, part)) < 0:
            return None
        array = pc.struct_field(array, [place])
    return array


def _type(schema: pa.Schema, column: str) -> pa.DataType | None:
    """The type of a column, which may lie in structs; None where there is none."""
    if column in schema.names:
        return schema.field(column).type
    top, *below = column.split(".")
    kind = schema.field(top).type
    for part in below:
        if (place := _place(kind, part)) < 0:
            return None
        kind = kind.field(place).type
    return kind


def _place(kind: pa.DataType, part: str) -> int:
    """Where a struct has a field, -1 for none and for other types."""
    return int(kind.get_field_index(part)) if pa.types.is_struct(kind) else -1


def texts_of(array: pa.Array, field: str, refusals: Refusals) -> pl.Series:
    """A column as text, at once where it is text; the rows that cannot be go to `refusals`."""
    if is_plain_text(array.type):
        try:
            texts = pl.Series(pl.from_arrow(array.cast(pa.large_binary()))).cast(pl.String)
        except pl.exceptions.PolarsError:
            pass  # some bytes are no text; one by one it is seen which
        else:
            return texts if field in CONTENT else texts.replace("", None)
    read = content_of if field in CONTENT else label_of
    return read_each((array,), lambda value: read(value, field), refusals)


def read_each(
    columns: Sequence[pa.Array], read: Callable[..., Any], refusals: Refusals, dtype: Any = pl.String
) -> pl.Series:
    """What is read of the values of each row, null for rows that are refused."""
    cells = []
    for row, scalars in enumerate(zip(*columns, strict=True)):
        try:
            cells.append(read(*map(_value, scalars)))
        except ColumnError as error:
            cells.append(None)
            refusals.setdefault(row, (error.reason, error.detail))
    return pl.Series(cells, dtype=dtype)


def _value(scalar: pa.Scalar) -> Any:
    """A value as Python has it. Raises ColumnError for one that it has not, such as a date in the year 300,000."""
    try:
        return scalar.as_py()
    except (ValueError, ArithmeticError, TypeError, RecursionError, pa.ArrowException) as error:
        raise ColumnError("wrong_type", f"a value of {str(scalar.type)[:100]} that has no meaning here") from error


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
