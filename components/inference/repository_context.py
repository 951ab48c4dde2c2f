"""Related files before a prompt, as training has files of a package one behind the other.

    <|file_sep|>path\\ntext<|file_sep|>path\\ntext<|file_sep|>path of the file that is written\\n

Then the prompt of components.inference.infilling_prompts follows, whose `context` this is. Text is encoded as text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from components.tokens.encoding.codec import TextCodec
from components.tokens.repository.groups import path_lines
from components.tokens.repository.imports import imported_modules, nearest_last


@dataclass(frozen=True, slots=True, kw_only=True)
class RelatedFile:
    """A file beside the one that is written: its path in the package, and its text."""

    path: str
    text: str


def context_tokens(
    codec: TextCodec, path: str, prefix: str, files: Sequence[RelatedFile], max_tokens: int
) -> list[int]:
    """Files of the package of a file, and its path, in at most `max_tokens`; those that it imports or that lie near it
    last. Whole files or whole lines: the first files go, and of one that does not fit in whole the first lines.

    prefix      the text of the file that is written, as far as it goes
    Returns nothing where not even the path fits. Raises ValueError for a tokenizer without a token that begins a file.
    """
    files = [files[each] for each in nearest_last(path, imported_modules(prefix), [file.path for file in files])]
    *headers, own = _headers(codec, [*(file.path for file in files), path])
    room = max_tokens - len(own)
    if room < 0:
        return []
    kept: list[list[int]] = [own]
    for file, header in zip(reversed(files), reversed(headers), strict=True):
        text = codec.encode(file.text)
        if len(header) + len(text) > room:
            text = _last_lines(codec, file.text, room - len(header))
            kept += [[*header, *text]] if text else []
            break
        kept.append([*header, *text])
        room -= len(header) + len(text)
    return [token for part in reversed(kept) for token in part]


def _headers(codec: TextCodec, paths: Sequence[str]) -> list[list[int]]:
    separator = codec.special.file_sep
    if separator is None:
        raise ValueError(
            "the tokenizer has no token that begins a file; the stage vocabulary gives every tokenizer one"
        )
    line_end = codec.encode("\n")
    return [[separator, *codec.encode(line), *line_end] for line in path_lines(paths)]


def _last_lines(codec: TextCodec, text: str, room: int) -> list[int]:
    """The most whole lines from the end of a text that fit."""
    spans = codec.spans_batch([text])[0]
    tokens: list[int] = []
    start = max(0, int(spans[-room, 0]) - 1) if 0 < room < len(spans) else len(text)
    while start < len(text):
        start = text.find("\n", start) + 1 or len(text)
        if text[start:] and len(tokens := codec.encode(text[start:])) <= room:
            return tokens
    return []
