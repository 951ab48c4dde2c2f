"""Text that people write: UTF-8 with or without a byte order mark, lines that end in LF or in CRLF.

Every file that a person edits (YAML, TOML, JSON, JSON lines) is read here. Documents are not: they stay as they were.
"""

import codecs
import json
from pathlib import Path
from typing import Any

from components.core.errors import one_line

# The largest that people hand over are a tokenizer.json (Gemma's, 262,144 tokens, has 33 MB) and an index of weights
# (the largest models have some 100,000 tensors, each a line).
JSON_BYTES = 64_000_000
_OTHER = "it begins as UTF-16 does, needed UTF-8; save it as UTF-8"


def text_of(content: bytes) -> str:
    """Bytes as text, without a byte order mark, lines ended by LF. Raises UnicodeError that says what to do."""
    if is_utf16(content):
        raise UnicodeError(_OTHER)
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UnicodeError(
            f"byte {error.start} is 0x{content[error.start]:02x}, needed UTF-8; save it as UTF-8"
        ) from error


def read_text(path: Path) -> str:
    """`text_of` a file. Raises OSError, too."""
    return text_of(path.read_bytes())


def read_json_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds. Raises ValueError with one line for anything else, and for a larger file."""
    try:
        if (size := path.stat().st_size) > JSON_BYTES:
            raise ValueError(f"has {size} bytes, at most {JSON_BYTES} are read")
        content = json.loads(read_text(path))
    except (OSError, RecursionError) as error:
        raise ValueError(one_line(error)) from error
    if not isinstance(content, dict):
        raise ValueError(f"found {type(content).__name__}, needed an object")
    return content


def readable(content: bytes) -> str:
    """Bytes as text whatever they are, for what is only searched: a licence may be in UTF-16, too."""
    return content.decode("utf-16" if is_utf16(content) else "utf-8-sig", "replace")


def is_utf16(content: bytes) -> bool:
    """Whether a text begins as UTF-16 or UTF-32 does, with or without a byte order mark."""
    return content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content[:4]
