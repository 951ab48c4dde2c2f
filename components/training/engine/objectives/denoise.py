"""Denoising of spans: the R, S and X of UL2 (Tay et al. 2022, arXiv:2205.05131, section 3.1). Only numpy.

Some spans of a piece are taken out; each leaves a token that names it, and is asked for behind its name. The text
"a b c d" without "b" and "d", for R:

    decoder            <mode_r>a<span_0>c<span_1><span_0>b<span_1>d<end>, asked for from "b" on
    encoder-decoder    the encoder reads <mode_r>a<span_0>c<span_1>, the decoder says <span_0>b<span_1>d<end> after a
                       start token (T5's form)

R takes out short spans and few tokens, X long spans or many tokens, S one span at the end of the piece (prefix LM).
Which tokens are noise is drawn as T5 draws it (Raffel et al. 2020, random_spans_noise_mask): an exact share, in spans
of random lengths. A tokenizer that names fewer spans than wanted gets fewer and longer ones.
What is cut: names and mode take room, so a decoder's piece loses its end (2 spans + 1 tokens at most).
Not covered: a decoder's answer ends where its piece did, so its last span's length can be guessed from the window's.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.training.engine.objectives.document_pieces import Example


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoiser:
    """One way to take out spans.

    rate          chance that a piece is denoised so
    noise         share of a piece's tokens that is taken out; of S the mean of a share uniform in (0, 2 noise)
    span_tokens   mean length of a span; None is one span at the end (S)
    spans         ids of the tokens that name spans
    mode          id of the token that says which denoising; None where the tokenizer has none
    end           id of the token that ends the answer
    """

    rate: float
    noise: float
    span_tokens: float | None
    spans: NDArray[np.int64]
    mode: int | None
    end: int

    def counts(self, length: int, noise: float) -> tuple[int, int]:
        """(tokens taken out, spans) of a text of some tokens, at least one of each."""
        num_noise = min(max(round(length * noise), 1), length - 1)
        if self.span_tokens is None:
            return num_noise, 1
        return num_noise, max(
            1, min(round(num_noise / self.span_tokens), num_noise, length - num_noise, len(self.spans))
        )

    def share(self, draw: float) -> float:
        """The share to take out, from a draw in [0, 1)."""
        return self.noise if self.span_tokens is not None else 2 * self.noise * draw

    @property
    def longest_answer(self) -> float:
        """Tokens that a decoder says at most, for each token of the text, without the end."""
        most = self.share(1.0)
        return most if self.span_tokens is None else most * (1 + 1 / self.span_tokens)

    def noisy(self, length: int, draw: float, generator: np.random.Generator) -> NDArray[np.bool_]:
        """True where a token is taken out, shape (length,); the first token never is. `length` at least 2."""
        num_noise, spans = self.counts(length, self.share(draw))
        kept_runs, noise_runs = _runs(length - num_noise, spans, generator), _runs(num_noise, spans, generator)
        return np.repeat(np.tile([False, True], spans), np.stack([kept_runs, noise_runs], axis=1).ravel())

    def split(self, tokens: NDArray[np.int64], noisy: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What is given (mode, then the text with names for spans) and what is asked for (names and spans, end)."""
        begins = noisy & ~np.concatenate([[False], noisy[:-1]])
        names = self.spans[: begins.sum()]
        prompt = tokens.copy()
        prompt[begins] = names
        noise_before = np.cumsum(noisy)[begins] - 1
        answer = np.insert(tokens[noisy], noise_before, names)
        mode = [] if self.mode is None else [self.mode]
        return np.concatenate([mode, prompt[~noisy | begins]]).astype(np.int64), np.append(answer, self.end)

    def example(
        self, tokens: NDArray[np.int64], room: int, ends: bool, draw: float, generator: np.random.Generator
    ) -> Example:
        """Both behind each other, for a decoder that reads at most `room` tokens.

        Asked for is all behind the first name of the answer, which cannot be foreseen; of S the end only where the
        document ends, since there the text goes on.
        """
        length = len(tokens)
        while length + 2 * self.counts(length, self.share(draw))[1] + 1 > room:
            length -= 1
        prompt, answer = self.split(tokens[:length], self.noisy(length, draw, generator))
        scored = np.arange(1, len(prompt) + len(answer)) > len(prompt)
        if self.span_tokens is None:
            scored[-1] = ends and length == len(tokens)
        return Example(tokens=np.concatenate([prompt, answer]), scored=scored)


def _runs(total: int, parts: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Uniformly drawn lengths, each at least 1, that add up to `total`; shape (parts,)."""
    cuts = np.sort(generator.permutation(total - 1)[: parts - 1]) + 1
    return np.diff(cuts, prepend=0, append=total)
