"""All files that tokenize writes, filled a chunk of documents at a time, and the counts of what went into them."""

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.tokens.encoding.special import END_OF_TEXT_ID
from components.tokens.shards.tables import TableWriter
from components.tokens.shards.token_store import SPLITS, Split, TokenWriter, documents_path

DOCUMENTS_SCHEMA = pl.Schema(
    {
        "id": pl.String,
        "path": pl.String,
        "source": pl.String,
        "language": pl.String,
        "bytes": pl.Int64,
        "encoded_bytes": pl.Int64,
        "tokens": pl.Int64,
        "cluster": pl.String,
    }
)
_TEXT_COLUMNS = ("id", "text", "path", "package", "licence", "language")
VALIDATION_SCHEMA = pl.Schema({**dict.fromkeys(_TEXT_COLUMNS, pl.String), "bytes": pl.Int64, "cluster": pl.String})
VALIDATION = "validation.parquet"
_UNITS = ("tokens", "documents", "bytes")
_DOCUMENTS_GROUP_ROWS = 65_536
_VALIDATION_GROUP_ROWS = 1024  # these rows have texts: about 15 MB


def with_ends(
    tokens: NDArray[np.uint32], lengths: NDArray[np.int64], ends: int | NDArray[np.integer] = END_OF_TEXT_ID
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The tokens of all documents with the token that ends each behind it, and the lengths that include it.

    ends    of all, or of each, shape (documents,)
    """
    lengths = lengths + 1
    result = np.empty(len(tokens) + len(lengths), dtype=np.uint32)
    is_end = np.zeros(len(result), dtype=bool)
    is_end[np.cumsum(lengths) - 1] = True
    result[is_end] = ends
    result[~is_end] = tokens
    return result, lengths


class Output:
    """The token files of both splits, the tables of their documents, and validation.parquet.

    `rows` says, once the context is left, how many rows each file has.
    """

    def __init__(self, directory: Path, *, vocabulary_size: int, shard_tokens: int) -> None:
        self.rows: dict[str, int] = {}
        self._stack = ExitStack()
        self._tokens: dict[Split, TokenWriter] = {}
        self._documents: dict[Split, TableWriter] = {}
        for split in SPLITS:
            writer = TokenWriter(directory, split, vocabulary_size=vocabulary_size, shard_tokens=shard_tokens)
            table = TableWriter(documents_path(directory, split), DOCUMENTS_SCHEMA, group_rows=_DOCUMENTS_GROUP_ROWS)
            self._tokens[split] = self._stack.enter_context(writer)
            self._documents[split] = self._stack.enter_context(table)
        table = TableWriter(directory / VALIDATION, VALIDATION_SCHEMA, group_rows=_VALIDATION_GROUP_ROWS)
        self._validation = self._stack.enter_context(table)
        self._by_source: Counter[str] = Counter()
        self._counts: dict[str, Counter[str]] = {f"{split}_{unit}": Counter() for split in SPLITS for unit in _UNITS}

    def append(
        self, rows: pl.DataFrame, tokens: NDArray[np.uint32], lengths: NDArray[np.int64], is_held_out: pl.Series
    ) -> None:
        """Add documents of one source (DOCUMENTS_SCHEMA without tokens, those held out with VALIDATION_SCHEMA too) with
        all their tokens one after another, and the number of each's."""
        if rows.is_empty():
            return
        source = str(rows["source"][0])
        rows = rows.with_columns(tokens=pl.Series(lengths))
        masks: dict[Split, pl.Series] = {"train": ~is_held_out, "validation": is_held_out}
        for split, mask in masks.items():
            chosen = mask.to_numpy()
            self._tokens[split].append(tokens[np.repeat(chosen, lengths)], lengths[chosen], source)
            self._documents[split].append(rows.filter(mask))
            self._count(split, rows.filter(mask))
            self._by_source[source] += int(lengths[chosen].sum()) * (split == "train")
        if is_held_out.any():
            self._validation.append(rows.filter(is_held_out))

    def statistics(self) -> dict[str, Any]:
        """Counts of both splits; bytes per token are those of the texts against their tokens and <|endoftext|>."""
        num_bytes = self._counts["train_bytes"] + self._counts["validation_bytes"]
        num_tokens = self._counts["train_tokens"] + self._counts["validation_tokens"]
        by_language = {name: round(num_bytes[name] / count, 6) for name, count in sorted(num_tokens.items())}
        return {
            **{name: counts.total() for name, counts in self._counts.items()},
            "bytes_per_token": round(num_bytes.total() / num_tokens.total(), 6),
            "bytes_per_token_by_language": by_language,
            "train_tokens_by_source": dict(sorted(self._by_source.items())),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        for writer in self._tokens.values():
            self.rows |= writer.rows
        self.rows |= {table.path.name: table.num_rows for table in (*self._documents.values(), self._validation)}

    def _count(self, split: Split, documents: pl.DataFrame) -> None:
        columns = (pl.len().alias("documents"), pl.sum("bytes", "tokens"))
        for row in documents.group_by(pl.col("language").fill_null("unknown")).agg(*columns).iter_rows(named=True):
            for unit in _UNITS:
                self._counts[f"{split}_{unit}"][row["language"]] += row[unit]
