"""Windows of tokens to a batch: which objective each piece of a document gets, and where it lies. Only numpy.

Every row is a pure function of its window, epoch, sample and the seed. Pieces keep their order and their places:
whatever an objective makes of a piece fills the very positions that the piece had (an encoder-decoder's pieces lie one
behind the other on both sides), so a document's loss can be told from a batch.
A piece that becomes infilling is first cut in two, which are infilled apart. What fills its window ends with it: one
that always did would teach that middles end where windows do, and a small model learned nothing else.
Of files of a package that follow each other one is infilled, below its path and the files before it, which stay as they
are; those behind it become a piece of their own. So a prompt with related files before the form is what training has
seen (StarCoder2, arXiv:2402.19173; Qwen2.5-Coder, arXiv:2409.12186), and no middle spans files.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.training.engine.batches.batch import IGNORED, Batch
from components.training.engine.objectives.denoise import Denoiser
from components.training.engine.objectives.document_pieces import (
    MINIMUM_PIECE_TOKENS,
    Example,
    FileMarks,
    Piece,
    file_of,
    halved,
    pieces_of,
)
from components.training.engine.objectives.infill import Infill
from components.training.engine.objectives.masked import Masking

ROUNDING_TOKENS = 8  # an encoder-decoder's answer, above its longest share


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Objectives by their rates; what is left of 1 is the next token.

    seed        with epoch and sample the key of all draws
    end         id of the token that ends documents
    pad         id of the token that fills positions which nothing needs; never asked for
    infill      None without
    files       None for a tokenizer without a token that begins a file
    denoisers   of a decoder beside the others; of an encoder-decoder the only ones
    masking     of an encoder, the only one; None for other models
    """

    seed: int
    end: int
    pad: int
    infill: Infill | None = None
    files: FileMarks | None = None
    denoisers: tuple[Denoiser, ...] = ()
    masking: Masking | None = None
    two_sided: bool = False

    def batch(
        self, windows: NDArray[np.int64], epochs: Sequence[int], samples: Sequence[int], sources: NDArray[np.int64]
    ) -> Batch:
        """The batch of windows of T + 1 tokens, shape (B, T + 1), that are these samples (B,) of these epochs (B,)."""
        generators = [self._generator(*place) for place in zip(epochs, samples, strict=True)]
        pieces = pieces_of(windows, self.end)
        if self.two_sided:
            return self._encoder_decoder(windows, pieces, generators, sources)
        inputs, labels = windows[:, :-1].copy(), windows[:, 1:].copy()
        if self.masking is not None:
            for row, generator in enumerate(generators):
                inputs[row], labels[row] = self.masking.hide(inputs[row], self.end, generator)
        else:
            pieces = self._rewrite(inputs, labels, pieces, generators)
        positions = np.concatenate([np.arange(piece.lead + piece.room) for piece in pieces]).reshape(inputs.shape)
        return Batch(inputs=inputs, labels=labels, positions=positions, sources=sources)

    def _generator(self, epoch: int, sample: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self.seed, epoch], counter=[0, 0, 0, sample]))

    def _rewrite(
        self,
        inputs: NDArray[np.int64],
        labels: NDArray[np.int64],
        pieces: list[Piece],
        generators: list[np.random.Generator],
    ) -> list[Piece]:
        """Draw an objective for each piece and write it over inputs and labels, both (B, T); the pieces that result."""
        new_pieces: list[Piece] = []
        filled, fill_draws = [], []
        for piece, draw in [(piece, generators[piece.row].random(8)) for piece in pieces]:
            below = self.infill.rate if self.infill else 0.0
            if len(piece.tokens) < MINIMUM_PIECE_TOKENS or draw[0] >= below:
                new_pieces.append(piece)
            else:
                file, behind = self._file(piece, generators[piece.row])
                halves = halved(file, draw[1]) if file else []
                new_pieces += [*halves, *behind]
                filled += halves
                fill_draws += [draw[2:5], draw[5:8]][: len(halves)]
            if len(piece.tokens) >= MINIMUM_PIECE_TOKENS and (denoiser := self._denoiser(draw[0] - below)) is not None:
                example = denoiser.example(piece.tokens, piece.room, piece.ends, draw[1], generators[piece.row])
                self._write(inputs, labels, piece, example)
        if filled and self.infill:
            for piece, each in zip(filled, self.infill.examples(filled, np.array(fill_draws)), strict=True):
                if each is not None:
                    self._write(inputs, labels, piece, each)
        return new_pieces

    def _file(self, piece: Piece, generator: np.random.Generator) -> tuple[Piece | None, list[Piece]]:
        """What of a piece is infilled, all of a document or one of several files, and the piece of what is behind."""
        if self.files is None or not (piece.tokens == self.files.separator).any():
            return piece, []
        return file_of(piece, self.files, generator.random())

    def _denoiser(self, draw: float) -> Denoiser | None:
        """The denoiser that a draw falls to; None below 0 and behind the last."""
        if draw < 0:
            return None
        for denoiser in self.denoisers:
            draw -= denoiser.rate
            if draw < 0:
                return denoiser
        return None

    def _write(self, inputs: NDArray[np.int64], labels: NDArray[np.int64], piece: Piece, example: Example) -> None:
        stop = piece.start + len(example.scored)
        inputs[piece.row, piece.start : stop] = example.tokens[:-1]
        inputs[piece.row, stop : piece.stop] = self.pad
        labels[piece.row, piece.start : stop] = np.where(example.scored, example.tokens[1:], IGNORED)
        labels[piece.row, stop : piece.stop] = IGNORED
        if piece.lead:
            labels[piece.row, piece.start - 1] = IGNORED  # a server writes the form's first token

    def answer_length(self, length: int) -> int:
        """Positions of an encoder-decoder's decoder beside `length` of its encoder."""
        most = max(denoiser.longest_answer for denoiser in self.denoisers)
        return int(np.ceil(length * most / ROUNDING_TOKENS) + 1) * ROUNDING_TOKENS

    def _encoder_decoder(
        self,
        windows: NDArray[np.int64],
        pieces: list[Piece],
        generators: list[np.random.Generator],
        sources: NDArray[np.int64],
    ) -> Batch:
        """Pieces one behind the other on both sides; what is left of a row is padding, a piece of its own at its end.

        A piece shorter than MINIMUM_PIECE_TOKENS, and what finds no room on either side, is left out.
        """
        rows, length = len(windows), windows.shape[1] - 1
        width = self.answer_length(length)
        encoder, encoder_positions = _empty(rows, length, self.pad)
        inputs, positions = _empty(rows, width, self.pad)
        labels = np.full((rows, width), IGNORED)
        read, said = np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.int64)
        for piece in pieces:
            row, generator = piece.row, generators[piece.row]
            draw = generator.random(2)
            denoiser = self._denoiser(draw[0]) or self.denoisers[-1]
            size = _fitting(denoiser, len(piece.tokens), draw[1], length - read[row], width - said[row])
            if size < MINIMUM_PIECE_TOKENS:
                continue
            prompt, answer = denoiser.split(piece.tokens[:size], denoiser.noisy(size, draw[1], generator))
            place, answered = slice(read[row], read[row] + len(prompt)), slice(said[row], said[row] + len(answer))
            encoder[row, place], encoder_positions[row, place.start :] = prompt, np.arange(length - place.start)
            inputs[row, answered], labels[row, answered] = [self.pad, *answer[:-1]], answer
            positions[row, answered.start :] = np.arange(width - answered.start)
            if denoiser.span_tokens is None and not (piece.ends and size == len(piece.tokens)):
                labels[row, answered.stop - 1] = IGNORED  # the text goes on
            read[row], said[row] = place.stop, answered.stop
            encoder_positions[row, place.stop :] = np.arange(length - place.stop)
            positions[row, answered.stop :] = np.arange(width - answered.stop)
        return Batch(
            inputs=inputs,
            labels=labels,
            positions=positions,
            sources=sources,
            encoder_inputs=encoder,
            encoder_positions=encoder_positions,
        )


def _empty(rows: int, width: int, pad: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tokens and positions of rows that are padding."""
    return np.full((rows, width), pad), np.tile(np.arange(width), (rows, 1))


def _fitting(denoiser: Denoiser, size: int, draw: float, read: int, said: int) -> int:
    """The longest text, at most `size` tokens, whose given part and answer fit `read` and `said` positions."""
    while size >= MINIMUM_PIECE_TOKENS:
        num_noise, spans = denoiser.counts(size, denoiser.share(draw))
        if (denoiser.mode is not None) + size - num_noise + spans <= read and num_noise + spans + 1 <= said:
            break
        size -= 1
    return size
