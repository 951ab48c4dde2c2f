"""Text to token ids and back, without transformers (whose import takes seconds).

Text is data: what looks like a special token in it is encoded as ordinary characters. Special tokens enter a sequence
only as ids (components.tokens.encoding.special), which `TextCodec.special` has of this tokenizer.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from components.core.errors import ArtifactError
from components.tokens.encoding.alphabet import REPLACEMENT, byte_names
from components.tokens.encoding.special import SpecialTokens

TOKENIZER = "tokenizer.json"


class TextCodec:
    """The tokenizer of a model or tokenizer directory."""

    def __init__(self, directory: Path) -> None:
        """Read `tokenizer.json`. Raises ArtifactError when it is absent or cannot be read."""
        path = directory / TOKENIZER
        if not path.is_file():
            raise ArtifactError(
                f"{directory}: found no {TOKENIZER}, needed the tokenizer that the model was trained with; "
                "transformers' tokenizer.save_pretrained writes it there, the stage vocabulary writes ours"
            )
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for every cause
            raise ArtifactError(
                f"{path}: cannot be read as a tokenizer: {error}; the stage vocabulary writes it"
            ) from error
        self._tokenizer.encode_special_tokens = True
        # A file may carry how somebody's last run cut and filled up its texts, or drew its merges.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        if getattr(self._tokenizer.model, "dropout", None):
            self._tokenizer.model.dropout = None
        self.directory = directory
        # Of an adopted tokenizer whose ids have holes, more than it has tokens.
        self.vocabulary_size = max(self._tokenizer.get_vocab().values()) + 1

    @cached_property
    def special(self) -> SpecialTokens:
        """Its special tokens. Raises ArtifactError when no token ends a text."""
        return SpecialTokens.read(self.directory)

    @cached_property
    def max_token_characters(self) -> int:
        """Characters of a text that one token stands for, at most. Not of an unknown token that stands for many."""
        return max(map(len, self._tokenizer.get_vocab()))

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; never a special token."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, on all cores."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def spans_batch(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Where each token of `encode_batch` lies in its text: first character and the one behind the last, shape
        (tokens, 2). Tokens that share a character, each with some of its bytes, all have it."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2) for encoding in encodings]

    def bytes_of_texts(self, texts: Sequence[str]) -> list[int]:
        """Bytes of each text as its tokens are to stand for them: in the form that the tokenizer brings texts into,
        with SentencePiece's character for a space counted as a space."""
        normalizer = self._tokenizer.normalizer
        if normalizer is not None:
            texts = [normalizer.normalize_str(text) for text in texts]
        if not self._is_byte_level:
            texts = [text.replace(REPLACEMENT, " ") for text in texts]
        return [len(text.encode()) for text in texts]

    @property
    def added_tokens(self) -> list[str]:
        """The texts of the tokens that were added to the vocabulary, special ones and others."""
        return [added.content for added in self._tokenizer.get_added_tokens_decoder().values()]

    def bytes_of_tokens(self) -> NDArray[np.int64]:
        """Bytes of text that each id stands for, shape (vocabulary_size,); 0 for a special token, which no text has,
        and for an id without a token."""
        sizes = np.zeros(self.vocabulary_size, dtype=np.int64)
        named = byte_names()
        for token, number in self._tokenizer.get_vocab(with_added_tokens=False).items():
            if self._is_byte_level:
                sizes[number] = len(token)
            else:
                sizes[number] = 1 if token in named else _spaced(token)
        for number, added in self._tokenizer.get_added_tokens_decoder().items():
            size = len(added.content.encode()) if self._is_byte_level else _spaced(added.content)
            sizes[number] = 0 if added.special else size
        return sizes

    @cached_property
    def _is_byte_level(self) -> bool:
        """Whether each character of a token is a byte of text; else it is a character of it, or names a byte."""
        return "ByteLevel" in str(self._tokenizer.decoder)

    def decode_batch(self, sequences: Sequence[NDArray[np.int64]]) -> list[str]:
        """Text of each sequence of token ids, special tokens included; as `decode`."""
        return list(self._tokenizer.decode_batch([each.tolist() for each in sequences], skip_special_tokens=False))

    def decode(self, tokens: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of token ids; bytes that are not UTF-8 (a cut inside a character) become U+FFFD."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=skip_special_tokens))


def _spaced(token: str) -> int:
    return len(token.replace(REPLACEMENT, " ").encode())
