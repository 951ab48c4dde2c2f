"""Documents to token files, a share of them in groups of files of one package.

Alone    text<|endoftext|>
A group  <|file_sep|>path\\ntext<|file_sep|>path\\ntext<|endoftext|>

Every document keeps its own tokens: its path and text, and the token that ends it, which begins the next file; the
first file of a group has the token that begins it, too. So whatever is read is told from its document, and no
document's tokens are another's. Only <|endoftext|> parts what attends to each other: a group is read as one.
"""

import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.core.errors import DataError
from components.data.documents.document import cut
from components.tokens.config import TokenizeConfig
from components.tokens.encoding.encoder import Encoder
from components.tokens.encoding.special import FILE_SEP
from components.tokens.repository.groups import groups_of, may_stand_in_groups, path_lines
from components.tokens.repository.imports import imported_modules
from components.tokens.shards.writer import DOCUMENTS_SCHEMA, Output, with_ends

_NOTHING = np.zeros(0, dtype=np.uint32)
_KEPT = pl.Schema(
    [*DOCUMENTS_SCHEMA.items(), ("package", pl.String), ("imports", pl.List(pl.String)), ("start", pl.Int64)]
)


class DocumentWriter:
    """Documents source by source into an Output; those that may stand in a group are written when their source ends.

    Until then their tokens lie in a file without a name beside the token files, and their columns, which have no text,
    in memory. Without `repository_share` none waits. A context: leaving it writes what waits.
    """

    def __init__(self, config: TokenizeConfig, encoder: Encoder, output: Output, directory: Path) -> None:
        """Raises DataError for groups and a tokenizer without a token that begins a file."""
        self.num_groups = self.num_grouped = 0
        self._config, self._encoder, self._output, self._directory = config, encoder, output, directory
        self._end = encoder.codec.special.end_of_text
        separator = encoder.codec.special.file_sep
        self._line_end = np.array(encoder.codec.encode("\n"), dtype=np.uint32)
        self._token_bytes = encoder.codec.bytes_of_tokens()
        self._source: str | None = None
        self._waiting: list[pl.DataFrame] = []
        self._file: IO[bytes] | None = None
        self._num_tokens = 0
        if config.repository_share and separator is None:
            raise DataError(
                f"{encoder.codec.directory}: found no token {FILE_SEP}, which tokenize.repository_share needs; learn "
                "the tokenizer with the stage vocabulary, or set it to 0"
            )
        self._separator = self._end if separator is None else separator  # without groups there is none

    def append(
        self, rows: pl.DataFrame, tokens: NDArray[np.uint32], lengths: NDArray[np.int64], is_held_out: pl.Series
    ) -> None:
        """Add documents of one source with all their tokens one after another, no end among them, and the number of
        each's. The documents of a source come one after another."""
        if rows.is_empty():
            return
        if self._source != rows["source"][0]:
            self._write_waiting()
            self._source = rows["source"][0]
        waits = ~is_held_out & may_stand_in_groups(rows) & bool(self._config.repository_share)
        chosen = waits.to_numpy()
        if chosen.any():
            self._keep(rows.filter(waits), tokens[np.repeat(chosen, lengths)], lengths[chosen])
        others = tokens[np.repeat(~chosen, lengths)]
        self._output.append(
            rows.filter(~waits), *with_ends(others, lengths[~chosen], self._end), is_held_out.filter(~waits)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._write_waiting()
        finally:
            self._forget()

    def _keep(self, rows: pl.DataFrame, tokens: NDArray[np.uint32], lengths: NDArray[np.int64]) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115 - open until the source ends
        imports = [
            imported_modules(text) if language == "python" else []
            for text, language in zip(rows["text"].to_list(), rows["language"].to_list(), strict=True)
        ]
        kept = rows.with_columns(
            imports=pl.Series(imports, dtype=pl.List(pl.String)),
            tokens=pl.Series(lengths),
            start=pl.Series(self._num_tokens + np.cumsum(lengths) - lengths),
        )
        self._waiting.append(kept.select(_KEPT.names()).cast(_KEPT))
        self._file.write(np.ascontiguousarray(tokens, dtype=np.uint32).data)
        self._num_tokens += len(tokens)

    def _write_waiting(self) -> None:
        """What waits of a source: the documents that stand alone as they came, then the groups."""
        if self._file is None:
            return
        rows, config = pl.concat(self._waiting), self._config
        groups = groups_of(rows, share=config.repository_share, limit_tokens=config.repository_tokens, seed=config.seed)
        grouped = np.array([row for group in groups for row in group], dtype=np.int64)
        alone = np.setdiff1d(np.arange(len(rows)), grouped)
        stops = len(alone) + np.cumsum([len(group) for group in groups], dtype=np.int64)
        places = np.arange(len(rows))
        laid = rows[np.concatenate([alone, grouped])].with_columns(
            grouped=pl.Series(places >= len(alone)),
            first=pl.Series(np.isin(places, [len(alone), *stops[:-1].tolist()]) & (places >= len(alone))),
            end=pl.Series(np.where((places >= len(alone)) & ~np.isin(places + 1, stops), self._separator, self._end)),
        )
        self._file.flush()
        tokens = np.memmap(self._file, np.uint32, "r", shape=(self._num_tokens,)) if self._num_tokens else _NOTHING
        for piece in cut(laid["bytes"], config.chunk_bytes):
            self._write(laid[piece], tokens)
        self.num_groups += len(groups)
        self.num_grouped += len(grouped)
        self._forget()

    def _write(self, rows: pl.DataFrame, tokens: NDArray[np.uint32]) -> None:
        headers = self._headers(rows)
        texts = [tokens[start : start + length] for start, length in rows.select("start", "tokens").iter_rows()]
        lengths = np.array([len(header) + len(text) for header, text in zip(headers, texts, strict=True)])
        joined = np.concatenate([each for pair in zip(headers, texts, strict=True) for each in pair])
        covered = pl.Series([int(self._token_bytes[header].sum()) for header in headers], dtype=pl.Int64)
        rows = rows.with_columns(encoded_bytes=pl.col("encoded_bytes") + covered)
        in_training = pl.repeat(False, len(rows), eager=True)
        self._output.append(rows, *with_ends(joined, lengths, rows["end"].to_numpy()), in_training)

    def _headers(self, rows: pl.DataFrame) -> list[NDArray[np.uint32]]:
        """What stands before the text of each document: nothing, or its path on a line, behind a separator that the
        document before does not have."""
        paths, lengths = self._encoder.encode(path_lines(rows["path"].filter(rows["grouped"]).to_list()))
        encoded = iter(np.split(paths, np.cumsum(lengths)[:-1]))
        opening = np.array([self._separator], dtype=np.uint32)
        return [
            np.concatenate([opening[:first], next(encoded), self._line_end]) if grouped else _NOTHING
            for grouped, first in rows.select("grouped", "first").iter_rows()
        ]

    def _forget(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._waiting, self._num_tokens = None, [], 0
