"""Names in held-out documents: how many of them a model would have written, given what stands before each.

A name is right when each of its tokens is the most probable one after the true text before it: finer than the next
line's exact match, and from the same pass as bits per byte.
Covers: every language that Pygments has a lexer for, under the names of
components.data.documents.programming_languages.
Not covered: names that are not words of letters, digits and _ (a decorator, `a.b` in an import), names in strings;
texts made to break lexers.
"""

import functools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pygments.lexer import Lexer
from pygments.lexers import get_all_lexers, get_lexer_by_name
from pygments.token import Name

from components.inference.engine import Prediction


def identifiers(text: str, language: str) -> NDArray[np.int64]:
    """First character of each name in a text and the one behind its last, shape (names, 2); none without a lexer."""
    return np.array(list(_spans(text, language)), dtype=np.int64).reshape(-1, 2)


def _spans(text: str, language: str) -> Iterator[tuple[int, int]]:
    lexer = _lexer(language)
    for start, kind, value in lexer.get_tokens_unprocessed(text) if lexer else ():
        if kind in Name and value.isidentifier():
            yield start, start + len(value)


@functools.cache
def _lexer(language: str) -> Lexer | None:
    """Pygments' own lexer; those that other packages register would be imported to look at their names."""
    known = any(language in aliases for _, aliases, *_ in get_all_lexers(plugins=False))
    return get_lexer_by_name(language) if known else None


def identifier_accuracy(
    predictions: Sequence[Prediction], token_spans: Sequence[NDArray[np.int64]], names: Sequence[NDArray[np.int64]]
) -> NDArray[np.float64]:
    """Share of each document's names that are right, shape (documents,); every document has a name at least.

    `token_spans` and `names`: first character and the one behind the last, shapes (tokens, 2) and (names, 2) for each
    document. Prediction t is of token t.
    """
    shares = []
    for prediction, spans, wanted in zip(predictions, token_spans, names, strict=True):
        wrong = np.concatenate([[0], np.cumsum(~prediction.is_top[: len(spans)])])
        first = np.searchsorted(spans[:, 1], wanted[:, 0], side="right")  # the first token that ends behind the start
        end = np.searchsorted(spans[:, 0], wanted[:, 1], side="left")  # the first that begins behind the name
        shares.append(float((wrong[end] == wrong[first]).mean()))
    return np.array(shares)
