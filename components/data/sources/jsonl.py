"""Lines of JSON, plain or compressed, in the column shapes that the config names.

Covers: lines that are no JSON object (left as file:line), texts that are not strings or hold lone surrogates, lines and
files that grow without end when they are decompressed, files that are cut off, a file that changes while it is read.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from components.core.errors import one_line
from components.core.text import is_utf16
from components.data.sources.config import JsonlSource
from components.data.sources.parquet import tables
from components.data.sources.reading.cells import ColumnError
from components.data.sources.reading.document_batch import BATCH_ROWS, Batch, left_rows
from components.data.sources.reading.rows import Rows
from components.data.sources.reading.still import Remote, Still

_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_CHUNK_BYTES = 1_000_000
# A bomb is judged once it has grown beyond this, so that small and very repetitive files are no bombs.
_FREE_BYTES = 64_000_000
# A text may be escaped to six times its size, and has company on its line.
LINE_BYTES_PER_TEXT_BYTE = 7


class _BombError(Exception):
    """A file that grew beyond its bound."""


def read(config: JsonlSource) -> Iterator[Batch]:
    """The lines of every file, in the order of their names. Raises DataError for a path without such files."""
    for name, location in tables(config.paths, _SUFFIXES):
        yield from read_lines(location, config, name)


def read_lines(location: Path, config: JsonlSource, name: str) -> Iterator[Batch]:
    """The lines of one file; lines, and what follows in a file that cannot be read on, are left with their reason."""
    rows = Rows(config, name, batch_rows=BATCH_ROWS)
    ended = ""
    try:
        with Still(location) as still:
            longest = config.max_document_bytes * LINE_BYTES_PER_TEXT_BYTE + _CHUNK_BYTES
            yield from rows_of(still, lines(_chunks(still, location, config.max_decompressed_ratio), longest), rows)
            return
    except _BombError as error:
        reason, ended = "zip_bomb", str(error)
    except (OSError, EOFError, pa.ArrowException) as error:
        reason, ended = "corrupt_file", one_line(error)
    except ColumnError as error:
        reason, ended = error.reason, error.detail
    yield rows.batch()
    yield Batch(left=left_rows([(name, reason, f"from line {rows.first} on: {ended}")]))


def rows_of(still: Still | Remote, numbered: Iterator[tuple[int, bytes | None]], rows: Rows) -> Iterator[Batch]:
    """The batches of numbered lines; from where the file changed on they are left."""
    for number, line in numbered:
        rows.parse(number, line)
        if rows.is_full:
            if still.changed:
                break
            yield rows.batch()
    if still.changed:
        yield Batch(left=left_rows([(rows.name, "changed", f"from line {rows.first} on")]))
        return
    yield rows.batch()


def lines(chunks: Iterator[bytes], longest: int) -> Iterator[tuple[int, bytes | None]]:
    """(number from 1, line) of a text in pieces; None for a line of more than `longest` bytes.

    Raises ColumnError (not_utf8) for a text that says it is UTF-16.
    """
    number, size = 1, 0
    parts: list[bytes] = []
    for chunk in chunks:
        if number == 1 and not size and is_utf16(chunk):
            raise ColumnError("not_utf8", "it begins as UTF-16 does, needed UTF-8; save it as UTF-8")
        *whole, rest = chunk.split(b"\n")
        for piece in whole:
            yield number, (b"".join([*parts, piece]) if size + len(piece) <= longest else None)
            number, parts, size = number + 1, [], 0
        size += len(rest)
        if size <= longest:
            parts.append(rest)
        else:
            parts = []
    if size:
        yield number, (b"".join(parts) if size <= longest else None)


def _chunks(still: Still, location: Path, ratio: float) -> Iterator[bytes]:
    """The decompressed bytes of a file. Raises _BombError when they are far more than the file has."""
    compression = _COMPRESSIONS.get(location.suffix)
    bound = max(_FREE_BYTES, int(ratio * still.size_bytes)) if compression else None
    source = pa.PythonFile(still.file, mode="r")
    stream = pa.CompressedInputStream(source, compression) if compression else source
    total = 0
    while chunk := stream.read(_CHUNK_BYTES):
        total += len(chunk)
        if bound is not None and total > bound:
            raise _BombError(f"{still.size_bytes} bytes grew beyond {bound}, allowed {ratio:g} times the size")
        yield chunk
