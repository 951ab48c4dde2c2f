"""Fill in the middle, cut between characters (Bavarian et al. 2022, arXiv:2207.14255, sections 3 and 4). Only numpy.

    prefix first   <fim_prefix>prefix<fim_suffix>suffix<fim_middle>middle<end>
    suffix first   <fim_prefix><fim_suffix>suffix<fim_middle>prefix middle<end>      (the paper's second SPM)

A piece's text is cut at two uniform places between characters and each part is encoded by itself, as a server encodes
what stands before and behind a cursor: cuts between tokens would never show a cursor inside a word. The end token
follows every middle, whether or not the document ends there: it tells a server to stop. What a server always writes
itself, the three tokens of the form, is not asked for.
What is cut: the form takes two positions more than the piece, and parts encoded apart take about one more for each cut
inside a token, so text far from the middle goes: first the end of the suffix, then the start of the prefix (then of the
middle). Bytes that are no whole character, where a window begins or ends inside one, go too.
Not covered: tokenizers whose text depends on where an encoding begins (SentencePiece's first space); they are refused.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.training.engine.objectives.document_pieces import Example, Piece

FORM_TOKENS = 3  # prefix, suffix, middle; the end is said and not read
LONE_BYTES = "\ufffd"  # what bytes that are no character are decoded to

Encode = Callable[[Sequence[str]], list[NDArray[np.int64]]]
Decode = Callable[[Sequence[NDArray[np.int64]]], list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Infill:
    """How middles are asked for.

    rate           chance that a piece becomes one
    suffix_first   share of them that give the suffix first
    encode         token ids of many texts, each by itself
    decode         texts of many token ids; bytes that are no character become U+FFFD
    Raises ValueError when texts do not survive being encoded in parts.
    """

    rate: float
    suffix_first: float
    prefix: int
    suffix: int
    middle: int
    end: int
    encode: Encode
    decode: Decode

    def __post_init__(self) -> None:
        parts = ["value", "s = 1", " + é"]
        if (text := self.decode([np.concatenate(self.encode(parts))])[0]) != "".join(parts):
            raise ValueError(
                f"a text that is encoded in parts comes back as {text!r}, not {''.join(parts)!r}; infilling needs a "
                "tokenizer that adds nothing where a text begins: set pretrain.objectives.infill.rate to 0"
            )

    def examples(self, pieces: Sequence[Piece], draws: NDArray[np.float64]) -> list[Example | None]:
        """What takes the place of each piece; None where nothing does, for want of whole characters.

        draws   (pieces, 3) in [0, 1): the two cuts and the order
        """
        texts = [text.strip(LONE_BYTES) for text in self.decode([piece.tokens for piece in pieces])]
        parts = [part for text, each in zip(texts, draws, strict=True) for part in _cut(text, each[0], each[1])]
        encoded = self.encode(parts)
        examples: list[Example | None] = []
        for number, (piece, text) in enumerate(zip(pieces, texts, strict=True)):
            # Nothing but lone bytes, or some in its midst, as no whole document has them: better left as it is.
            if not text or LONE_BYTES in text or piece.room <= FORM_TOKENS:
                examples.append(None)
                continue
            prefix, middle, suffix = encoded[3 * number : 3 * number + 3]
            kept = fitted(prefix, middle, suffix, piece.room - FORM_TOKENS)
            examples.append(self._example(*kept, suffix_first=bool(draws[number, 2] < self.suffix_first)))
        return examples

    def _example(
        self, prefix: NDArray[np.int64], middle: NDArray[np.int64], suffix: NDArray[np.int64], *, suffix_first: bool
    ) -> Example:
        begin = [np.array([self.prefix])]
        behind = [np.array([self.suffix]), suffix, np.array([self.middle])]
        parts = [*begin, *behind, prefix] if suffix_first else [*begin, prefix, *behind]
        tokens = np.concatenate([*parts, middle, [self.end]])
        return Example(tokens=tokens, scored=(tokens[1:] != self.suffix) & (tokens[1:] != self.middle))


def _cut(text: str, one: float, other: float) -> tuple[str, str, str]:
    first, second = sorted((int(one * (len(text) + 1)), int(other * (len(text) + 1))))
    return text[:first], text[first:second], text[second:]


def fitted(
    prefix: NDArray[np.int64], middle: NDArray[np.int64], suffix: NDArray[np.int64], room: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The three parts in at most `room` tokens: the end of the suffix goes first, then the start of all the rest."""
    over = max(0, len(prefix) + len(middle) + len(suffix) - room)
    from_suffix = min(over, len(suffix))
    from_prefix = min(over - from_suffix, len(prefix))
    kept = suffix[: len(suffix) - from_suffix]
    return prefix[from_prefix:], middle[over - from_suffix - from_prefix :], kept
