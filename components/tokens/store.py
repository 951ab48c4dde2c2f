"""Token files: one flat uint16 array per split and the offsets of its documents, written in a stream, read through
memory maps.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self

import numpy as np
from numpy.typing import NDArray

from components.core.errors import ArtifactError

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")
TOKEN_DTYPE = np.dtype("<u2")
BLOCK_TOKENS = 1024


class TokenWriter:
    """Append documents to `<split>.tokens.npy`; `close` writes `<split>.offsets.npy` beside it.

    Memory is the offsets alone. npy leaves room in its header for the final length, which `close` fills in.
    """

    def __init__(self, directory: Path, split: Split) -> None:
        self._directory = directory
        self._split = split
        self._lengths: list[NDArray[np.int64]] = []
        self.num_tokens = 0
        self._file: IO[bytes] = tokens_path(directory, split).open("wb")
        self._write_header()

    def append(self, documents: Sequence[Sequence[int]]) -> None:
        """Add documents in order, each with its final <|endoftext|> already in place."""
        self._lengths.append(np.fromiter(map(len, documents), dtype=np.int64, count=len(documents)))
        for document in documents:
            self._file.write(np.asarray(document, dtype=TOKEN_DTYPE).tobytes())
        self.num_tokens += int(self._lengths[-1].sum())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.close()
        offsets = np.cumsum(np.concatenate([np.zeros(1, dtype=np.int64), *self._lengths]))
        np.save(offsets_path(self._directory, self._split), offsets)

    def _write_header(self) -> None:
        header = {"descr": TOKEN_DTYPE.str, "fortran_order": False, "shape": (self.num_tokens,)}
        np.lib.format.write_array_header_1_0(self._file, header)


class TokenStore:
    """The tokens of one split, memory-mapped.

    tokens   shape (T,), uint16
    offsets  shape (documents + 1,), int64: document d is tokens[offsets[d]:offsets[d + 1]]
    """

    def __init__(self, directory: Path, split: Split) -> None:
        """Open `<split>.tokens.npy` and `<split>.offsets.npy`. Raises ArtifactError when they do not fit together."""
        try:
            self.tokens: NDArray[np.uint16] = np.load(tokens_path(directory, split), mmap_mode="r")
            self.offsets: NDArray[np.int64] = np.load(offsets_path(directory, split), mmap_mode="r")
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"{directory}: tokens of {split} cannot be read: {error}; run tokenize again"
            ) from error
        if self.offsets[-1] != len(self.tokens):
            raise ArtifactError(
                f"{offsets_path(directory, split)}: ends at {self.offsets[-1]}, {len(self.tokens)} tokens were found; "
                "run tokenize again"
            )
        # The document in which each block begins: a search then looks at the few documents of one block.
        blocks = np.arange(0, len(self.tokens) + BLOCK_TOKENS, BLOCK_TOKENS)
        self._first = np.minimum(np.searchsorted(self.offsets, blocks, side="right") - 1, self.num_documents - 1)

    @property
    def num_tokens(self) -> int:
        """T, <|endoftext|> included."""
        return len(self.tokens)

    @property
    def num_documents(self) -> int:
        """Number of documents."""
        return len(self.offsets) - 1

    def document(self, index: int) -> NDArray[np.uint16]:
        """The tokens of one document, its final <|endoftext|> included; a view, nothing is copied."""
        if not 0 <= index < self.num_documents:
            raise IndexError(f"document {index} of {self.num_documents}")
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def document_of(self, token: int) -> int:
        """The document that the token at an offset belongs to. O(1) for documents of more than a few tokens."""
        if not 0 <= token < self.num_tokens:
            raise IndexError(f"token {token} of {self.num_tokens}")
        block = token // BLOCK_TOKENS
        low, high = int(self._first[block]), int(self._first[block + 1])
        return low + int(np.searchsorted(self.offsets[low + 1 : high + 1], token, side="right"))


def tokens_path(directory: Path, split: Split) -> Path:
    """Where the tokens of a split lie."""
    return directory / f"{split}.tokens.npy"


def offsets_path(directory: Path, split: Split) -> Path:
    """Where the document offsets of a split lie."""
    return directory / f"{split}.offsets.npy"
