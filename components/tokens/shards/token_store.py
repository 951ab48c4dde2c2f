"""Token files: the tokens of each split in shards of a stated size, which document each token belongs to, and which
tokens each document has. Written in a stream, read through memory maps.

    <split>-00000.tokens.npy   every shard but the last has `tokenize.shard_tokens` tokens; uint16, or uint32 for a
                               vocabulary that is larger than 65,536
    <split>.offsets.npy        (documents + 1,) int64: document d is tokens offsets[d] to offsets[d + 1]
    <split>.blocks.npy         (blocks + 1,) int64: the document of every 1,024th token, and the last document
    <split>.documents.parquet  what each document is, in the order of the tokens: by source, then as tokenize says
    <split>.sources.json       [[name, tokens], ...] of the sources in the order of their tokens; all one where absent

Shards, so that the files of a large corpus are hashed, copied and fetched in parallel and a broken one costs one shard.
They are full whatever the documents are, so that the shard of a token is one division: a document or a training window
may lie across the end of a shard, and is then copied together; all others are views of the memory map.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from components.core import artifact
from components.core.errors import ArtifactError
from components.tokens.shards.windows import Source

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")
Tokens = NDArray[np.uint16] | NDArray[np.uint32]
BLOCK_TOKENS = 1024
COUNTED_TOKENS = 1 << 22  # bincount makes int64 of them
PAIRED_TOKENS = 1 << 25  # what `pairs` reads at most: half a second


def token_dtype(vocabulary_size: int) -> np.dtype[np.uint16] | np.dtype[np.uint32]:
    """The smallest of two types that numbers every token."""
    return np.dtype("<u2") if vocabulary_size <= 1 << 16 else np.dtype("<u4")


class TokenWriter:
    """Append documents to the shards of a split; leaving the context writes offsets and blocks beside them.

    Memory is the offsets alone. npy leaves room in its header for the final length, filled in when a shard is closed.
    """

    def __init__(self, directory: Path, split: Split, *, vocabulary_size: int, shard_tokens: int) -> None:
        self.num_tokens = 0
        self.rows: dict[str, int] = {}
        self._directory = directory
        self._split = split
        self._dtype = token_dtype(vocabulary_size)
        self._shard_tokens = shard_tokens
        self._lengths: list[NDArray[np.int64]] = []
        self._sources: dict[str, int] = {}
        self._file: IO[bytes] | None = None
        self._open()

    def append(self, tokens: NDArray[np.integer], lengths: NDArray[np.int64], source: str = "") -> None:
        """Add documents in order: their tokens one after another, each with the token that ends it in place, and the
        number of tokens of each, at least 1. The documents of a source come one after another."""
        assert lengths.sum() == len(tokens) and (lengths > 0).all(), "every document ends with a token"
        assert source not in list(self._sources)[:-1], "the documents of a source lie together"
        self._sources[source] = self._sources.get(source, 0) + len(tokens)
        self._lengths.append(lengths.astype(np.int64))
        tokens = tokens.astype(self._dtype, copy=False)
        start = 0
        while start < len(tokens):
            room = self._shard_tokens * len(self.rows) - self.num_tokens
            if not room:
                self._close()
                self._open()
                continue
            part = tokens[start : start + room]
            assert self._file is not None
            self._file.write(np.ascontiguousarray(part).data)
            self.num_tokens += len(part)
            start += len(part)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        if error is not None:
            return
        offsets = np.cumsum(np.concatenate([np.zeros(1, dtype=np.int64), *self._lengths]))
        for path, array in (
            (offsets_path(self._directory, self._split), offsets),
            (blocks_path(self._directory, self._split), blocks_of(offsets)),
        ):
            np.save(path, array)
            self.rows[path.name] = len(array)
        path = sources_path(self._directory, self._split)
        path.write_text(json.dumps([[name, tokens] for name, tokens in self._sources.items() if tokens]))
        self.rows[path.name] = sum(tokens > 0 for tokens in self._sources.values())

    def _open(self) -> None:
        path = shard_path(self._directory, self._split, len(self.rows))
        self.rows[path.name] = 0
        self._file = path.open("wb")
        self._write_header(0)

    def _close(self) -> None:
        assert self._file is not None
        name = Path(self._file.name).name
        self.rows[name] = self.num_tokens - self._shard_tokens * (len(self.rows) - 1)
        try:
            self._file.seek(0)
            self._write_header(self.rows[name])
        finally:
            self._file.close()

    def _write_header(self, num_tokens: int) -> None:
        assert self._file is not None
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (num_tokens,)}
        np.lib.format.write_array_header_1_0(self._file, header)


def blocks_of(offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The document of every BLOCK_TOKENS-th token and, behind them, the last document, shape (blocks + 1,)."""
    starts = np.arange(0, int(offsets[-1]), BLOCK_TOKENS)
    first = np.searchsorted(offsets, starts, side="right") - 1
    return np.append(first, len(offsets) - 2).astype(np.int64)


class TokenStore:
    """The tokens of one split, memory-mapped: num_tokens of them (T), with those that end documents, of num_documents.

    shards   the tokens in order, each but the last of the same length
    offsets  shape (documents + 1,), int64: document d is tokens offsets[d] to offsets[d + 1]
    sources  in the order of their tokens
    """

    def __init__(self, directory: Path, split: Split) -> None:
        """Open the files of a split. Raises ArtifactError when they are absent or do not fit together."""
        self.split = split
        self.directory = directory
        try:
            names = artifact.files(directory, f"{split}-*.tokens.npy") or [shard_path(directory, split, 0)]
            self.shards: list[Tokens] = [np.load(path, mmap_mode="r") for path in names]
            self.offsets: NDArray[np.int64] = np.load(offsets_path(directory, split), mmap_mode="r")
            self._blocks: NDArray[np.int64] = np.load(blocks_path(directory, split), mmap_mode="r")
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"{directory}: tokens of {split} cannot be read: {error}; run tokenize again"
            ) from error
        self.num_documents = len(self.offsets) - 1
        self.num_tokens = sum(map(len, self.shards))
        self._shard_tokens = len(self.shards[0])
        if self.offsets[-1] != self.num_tokens:
            raise ArtifactError(
                f"{offsets_path(directory, split)}: ends at {self.offsets[-1]}, {self.num_tokens} tokens were found; "
                "run tokenize again"
            )
        if any(len(shard) != self._shard_tokens for shard in self.shards[:-1]):
            raise ArtifactError(
                f"{directory}: found shards of {sorted({len(each) for each in self.shards[:-1]})} tokens for {split}, "
                "needed one length for all but the last; run tokenize again"
            )
        if len(self._blocks) != -(-self.num_tokens // BLOCK_TOKENS) + 1:
            raise ArtifactError(f"{blocks_path(directory, split)}: does not fit the tokens; run tokenize again")
        self.sources = read_sources(sources_path(directory, split), self.num_tokens)

    def read(self, start: int, stop: int) -> Tokens:
        """Tokens [start, stop) of the split: a view where they lie in one shard, else a copy. O(stop - start)."""
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(f"tokens {start} to {stop} of {self.num_tokens}")
        parts = []
        for number in range(start // self._shard_tokens, -(-stop // self._shard_tokens)) if stop > start else ():
            base = number * self._shard_tokens
            parts.append(self.shards[number][max(start - base, 0) : stop - base])
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([self.shards[0][:0], *parts])

    def document(self, row: int) -> Tokens:
        """The tokens of one document, the one that ends it included."""
        if not 0 <= row < self.num_documents:
            raise IndexError(f"document {row} of {self.num_documents}")
        return self.read(int(self.offsets[row]), int(self.offsets[row + 1]))

    def counts(self, vocabulary_size: int) -> NDArray[np.int64]:
        """How often each token occurs, shape (vocabulary_size,); a piece of a shard in memory at a time."""
        total = np.zeros(vocabulary_size, dtype=np.int64)
        for start in range(0, self.num_tokens, COUNTED_TOKENS):
            piece = self.read(start, min(start + COUNTED_TOKENS, self.num_tokens))
            total += np.bincount(piece, minlength=vocabulary_size)
        return total

    def pairs(self, vocabulary_size: int) -> NDArray[np.int64]:
        """How often token j follows token i, shape (vocabulary_size, vocabulary_size), in at most PAIRED_TOKENS tokens
        that are spread evenly over the split; 8 bytes a pair."""
        total = np.zeros(vocabulary_size**2, dtype=np.int64)
        stride = max(1, self.num_tokens // PAIRED_TOKENS) * COUNTED_TOKENS
        for start in range(0, self.num_tokens, stride):
            piece = self.read(start, min(start + COUNTED_TOKENS, self.num_tokens)).astype(np.int64)
            np.add(total, np.bincount(piece[:-1] * vocabulary_size + piece[1:], minlength=len(total)), out=total)
        return total.reshape(vocabulary_size, vocabulary_size)

    def sample(self, max_tokens: int, pieces: int = 8) -> Tokens:
        """At most `max_tokens` of the split, all when they are no more: pieces that are spread evenly over it."""
        if self.num_tokens <= max_tokens:
            return self.read(0, self.num_tokens)
        length = max_tokens // pieces
        starts = np.linspace(0, self.num_tokens - length, pieces).astype(np.int64)
        return np.concatenate([self.read(start, start + length) for start in starts.tolist()])

    def document_at(self, token: int) -> int:
        """The row of the document that the token at an offset belongs to, in O(1)."""
        return int(self.documents_at(np.array([token], dtype=np.int64))[0])

    def documents_at(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row of the document that each token belongs to, of the shape of `tokens` (offsets in the split).

        O(1) for each: the token's block says between which two documents it lies, and as a document has at least one
        token, eleven halvings always find it there.
        """
        if len(tokens) and (tokens.min() < 0 or tokens.max() >= self.num_tokens):
            raise IndexError(f"tokens {tokens.min()} to {tokens.max()} of {self.num_tokens}")
        low, high = self._blocks[tokens // BLOCK_TOKENS], self._blocks[tokens // BLOCK_TOKENS + 1]
        while (low < high).any():
            middle = (low + high + 1) // 2
            begun = self.offsets[middle] <= tokens
            low, high = np.where(begun, middle, low), np.where(begun, high, middle - 1)
        return np.asarray(low)

    def ids(self, rows: Sequence[int]) -> list[str]:
        """Ids of the documents at these rows, in their order."""
        documents = pl.scan_parquet(documents_path(self.directory, self.split)).select("id").with_row_index("row")
        matches = documents.filter(pl.col("row").is_in(list(rows))).collect()
        by_row = dict(zip(matches["row"].to_list(), matches["id"].to_list(), strict=True))
        return [by_row[row] for row in rows]

    def rows_of(self, document_ids: Sequence[str]) -> NDArray[np.int64]:
        """Rows of the documents with these ids, rising. Raises ArtifactError for one that this split does not have."""
        if not document_ids:
            return np.zeros(0, dtype=np.int64)
        documents = pl.scan_parquet(documents_path(self.directory, self.split)).select("id").with_row_index("row")
        matches = documents.filter(pl.col("id").is_in(document_ids)).collect()
        if absent := sorted(set(document_ids) - set(matches["id"])):
            raise ArtifactError(f"{documents_path(self.directory, self.split)}: no document has the id {absent[0]}")
        return matches["row"].to_numpy().astype(np.int64)


def read_sources(path: Path | None, num_tokens: int) -> list[Source]:
    """The sources of a split in the order of their tokens; one without a name where no file says so.

    Raises ArtifactError when they are not the tokens that there are.
    """
    listed: list[tuple[str, int]] = [("", num_tokens)]
    if path is not None and path.exists():
        listed = json.loads(path.read_bytes())
    stops = np.cumsum([tokens for _, tokens in listed], dtype=np.int64).tolist()
    if (stops[-1] if stops else 0) != num_tokens:
        raise ArtifactError(f"{path}: lists {stops[-1:]} tokens, {num_tokens} were found; run tokenize again")
    return [
        Source(name=name, start=stop - tokens, stop=stop) for (name, tokens), stop in zip(listed, stops, strict=True)
    ]


def shard_path(directory: Path, split: Split, number: int) -> Path:
    """Where a shard of the tokens of a split lies."""
    return directory / f"{split}-{number:05}.tokens.npy"


def offsets_path(directory: Path, split: Split) -> Path:
    """Where the document offsets of a split lie."""
    return directory / f"{split}.offsets.npy"


def blocks_path(directory: Path, split: Split) -> Path:
    """Where the documents of every BLOCK_TOKENS-th token lie."""
    return directory / f"{split}.blocks.npy"


def sources_path(directory: Path, split: Split) -> Path:
    """Where the list of sources lies."""
    return directory / f"{split}.sources.json"


def documents_path(directory: Path, split: Split) -> Path:
    """Where the description of the documents lies."""
    return directory / f"{split}.documents.parquet"
