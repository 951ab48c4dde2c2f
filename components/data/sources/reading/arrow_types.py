"""Extension types in a Parquet file's Arrow schema, found without letting Arrow make them.

Reading such a schema runs the code of whoever registered the type, and what that does with the type's own bytes is
its affair: some unpickle them. So the footer is searched as bytes, before pyarrow sees the file.
"""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_MAGIC = b"PAR1"
_TAIL_BYTES = 8
_KEY = b"ARROW:extension:name"
# A Parquet footer holds the Arrow schema as base64.
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{40,}")
_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9_.:-]{2,}")


def extension_type(file: Path) -> str | None:
    """The name of an extension type that a Parquet file declares; None for none, and for what is no Parquet file."""
    with file.open("rb") as source:
        return extension_type_in(source)


def extension_type_in(source: BinaryIO) -> str | None:
    """`extension_type` of an open file."""
    size = source.seek(0, 2)
    if size < 2 * _TAIL_BYTES:
        return None
    source.seek(size - _TAIL_BYTES)
    tail = source.read(_TAIL_BYTES)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or length > size - _TAIL_BYTES:
        return None
    source.seek(size - _TAIL_BYTES - length)
    names = (_named(each) for each in _schemas(source.read(length)))
    return next((name for name in names if name), None)


def _schemas(footer: bytes) -> Iterator[bytes]:
    """Whatever in a footer may be an Arrow schema: wherever it stands, however it is framed."""
    yield footer
    for run in _BASE64.findall(footer):
        for start in range(4):  # bytes before it may look like base64 too
            text = run[start:]
            yield base64.b64decode(text[: len(text) // 4 * 4])


def _named(schema: bytes) -> str | None:
    """The name after the first key of an extension type."""
    at = schema.find(_KEY)
    if at < 0:
        return None
    near = schema[max(0, at - 200) : at] + b"\0" + schema[at + len(_KEY) : at + 200]
    names = [each.decode() for each in _NAME.findall(near) if b"." in each and not each.startswith(b"ARROW:")]
    return names[0] if names else "without a name"
