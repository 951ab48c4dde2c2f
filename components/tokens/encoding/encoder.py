"""Many texts to token ids at once: by fastokens while it gives the very ids of tokenizers, else by tokenizers.

fastokens reads the same tokenizer.json and encodes 15 times as many bytes in a second of a core. tokenizers stays the
reference: it learns the vocabulary, and `differing` compares the two on whatever texts it is given. Of all 1,112,064
characters the regular expressions of the two class just U+180E differently (white space for PCRE2, none for Oniguruma;
tests/tokens/encoding/test_encoder.py looks at each), so texts that hold it are encoded by tokenizers.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import fastokens
import numpy as np
from numpy.typing import NDArray

from components.tokens.encoding.codec import TOKENIZER, TextCodec

Engine = Literal["fastokens", "tokenizers"]
CLASSED_DIFFERENTLY = "\u180e"


class Encoder:
    """Encodes batches of texts on all cores. Text that looks like a special token is ordinary text in both engines."""

    def __init__(self, directory: Path, engine: Engine = "fastokens") -> None:
        """Read `tokenizer.json`. Raises ArtifactError when it is absent or cannot be read.

        `reason` says why fastokens is not used although it was asked for, None otherwise.
        """
        self.codec = TextCodec(directory)
        self.reason: str | None = None
        self._fast: fastokens.Tokenizer | None = None
        if engine == "fastokens":
            try:
                self._fast = fastokens.Tokenizer.from_file(str(directory / TOKENIZER))
            except Exception as error:  # the library raises bare ValueError for every part that it does not know
                self.reason = f"fastokens cannot read this tokenizer: {error}"
        named = [f"a {name} b{name}" for name in self.codec.added_tokens]
        if self._fast is not None and named and self.differing(named, *self.encode(named)) is not None:
            self._fast = None  # with some normalizers it takes a text that says a token for that token
            self.reason = "fastokens reads texts that say a special token differently"

    @property
    def engine(self) -> Engine:
        """The library that encodes."""
        return "tokenizers" if self._fast is None else "fastokens"

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Ids of all texts one after another, shape (tokens,), and how many each text has, shape (texts,)."""
        if self._fast is None:
            return self._encode_with_reference(texts)
        apart = [number for number, text in enumerate(texts) if CLASSED_DIFFERENTLY in text]
        plain = ["" if CLASSED_DIFFERENTLY in text else text for text in texts] if apart else list(texts)
        buffer, ends = self._fast.encode_batch_flat(plain, add_special_tokens=False, split_special_tokens=True)
        tokens = np.frombuffer(buffer, dtype="<u4")
        offsets = np.frombuffer(ends, dtype="<u8").astype(np.int64)
        if apart:
            parts = np.split(tokens, offsets[1:-1])
            for number in apart:
                parts[number] = self._encode_with_reference([texts[number]])[0]
            return np.concatenate(parts), np.array([len(part) for part in parts], dtype=np.int64)
        return tokens, np.diff(offsets)

    def differing(self, texts: Sequence[str], tokens: NDArray[np.uint32], lengths: NDArray[np.int64]) -> int | None:
        """The first of the texts whose ids, as `encode` gave them, are not those of tokenizers; None when all are."""
        if self._fast is None:
            return None
        wanted, wanted_lengths = self._encode_with_reference(texts)
        if np.array_equal(tokens, wanted) and np.array_equal(lengths, wanted_lengths):
            return None
        ids = np.split(tokens, np.cumsum(lengths)[:-1])
        pairs = zip(ids, np.split(wanted, np.cumsum(wanted_lengths)[:-1]), strict=True)
        return next(number for number, (one, other) in enumerate(pairs) if not np.array_equal(one, other))

    def _encode_with_reference(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        encoded = self.codec.encode_batch(texts)
        lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
        tokens = [np.array(ids, dtype=np.uint32) for ids in encoded]
        return np.concatenate([np.empty(0, np.uint32), *tokens]), lengths
