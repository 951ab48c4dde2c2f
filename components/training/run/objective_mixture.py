"""The configured mixture of objectives, with the special tokens and the text of the run's tokenizer. No torch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.core.errors import DataError
from components.tokens.encoding.encoder import Encoder
from components.tokens.encoding.special import SpecialTokens
from components.training.engine.model.shape import Kind
from components.training.engine.objectives.denoise import Denoiser
from components.training.engine.objectives.document_pieces import FileMarks
from components.training.engine.objectives.infill import Infill
from components.training.engine.objectives.masked import Masking
from components.training.engine.objectives.packing import Mixture
from components.training.parameters.objectives import ObjectivesConfig


def missing_tokens(config: ObjectivesConfig, special: SpecialTokens) -> list[str]:
    """Names of the special tokens that the objectives need and a tokenizer lacks.

    Modes are needed where a model has to tell one denoising from another, spans in any.
    """
    rates = config.rates
    denoised = [name for name in ("denoise_r", "denoise_s", "denoise_x") if rates[name] > 0]
    needed = ["fim_prefix", "fim_middle", "fim_suffix"] if rates["infill"] > 0 else []
    needed += ["mask"] if rates["masked"] > 0 else []
    needed += [name.replace("denoise", "mode") for name in denoised] if len(denoised) > 1 else []
    lacking = [name for name in needed if getattr(special, name) is None]
    return lacking + (["spans (vocabulary.span_tokens)"] if denoised and not special.spans else [])


def require_tokens(config: ObjectivesConfig, tokenizer: Path) -> SpecialTokens:
    """Those of a tokenizer's directory. Raises DataError for a tokenizer that lacks some that the objectives need."""
    special = SpecialTokens.read(tokenizer)
    if lacking := missing_tokens(config, special):
        raise DataError(
            f"{tokenizer}: the tokenizer has no special tokens for {', '.join(lacking)}, which pretrain.objectives "
            "needs; learn one that has them, or set the rates of those objectives to 0"
        )
    return special


def mixture_of(config: ObjectivesConfig, kind: Kind, tokenizer: Path, seed: int) -> Mixture:
    """What a run asks of a kind of model. Raises DataError for a tokenizer that lacks what the objectives need."""
    special = require_tokens(config, tokenizer)
    encoder = Encoder(tokenizer)
    return Mixture(
        seed=seed,
        end=special.end_of_text,
        pad=special.filler,
        infill=_infill(config, special, encoder, tokenizer) if config.infill.rate > 0 else None,
        files=_files(special, encoder),
        denoisers=_denoisers(config, special),
        masking=_masking(config, special, encoder.codec.vocabulary_size) if kind == "encoder" else None,
        two_sided=kind == "encoder-decoder",
    )


def _infill(config: ObjectivesConfig, special: SpecialTokens, encoder: Encoder, tokenizer: Path) -> Infill:
    assert special.fim_prefix is not None and special.fim_suffix is not None and special.fim_middle is not None

    def encode(texts: Sequence[str]) -> list[NDArray[np.int64]]:
        tokens, lengths = encoder.encode(texts)
        return np.split(tokens.astype(np.int64), np.cumsum(lengths)[:-1])

    try:
        return Infill(
            rate=config.infill.rate,
            suffix_first=config.infill.suffix_first,
            prefix=special.fim_prefix,
            suffix=special.fim_suffix,
            middle=special.fim_middle,
            end=special.end_of_text,
            encode=encode,
            decode=encoder.codec.decode_batch,
        )
    except ValueError as error:
        raise DataError(f"{tokenizer}: {error}") from error


def _files(special: SpecialTokens, encoder: Encoder) -> FileMarks | None:
    if special.file_sep is None:
        return None
    return FileMarks(separator=special.file_sep, line_end=encoder.codec.encode("\n")[-1])


def _denoisers(config: ObjectivesConfig, special: SpecialTokens) -> tuple[Denoiser, ...]:
    modes = ((config.denoise_r, special.mode_r), (config.denoise_s, special.mode_s), (config.denoise_x, special.mode_x))
    return tuple(
        Denoiser(
            rate=each.rate,
            noise=each.noise,
            span_tokens=getattr(each, "span_tokens", None),
            spans=np.array(special.spans, dtype=np.int64),
            mode=mode,
            end=special.end_of_text,
        )
        for each, mode in modes
        if each.rate > 0
    )


def _masking(config: ObjectivesConfig, special: SpecialTokens, vocabulary_size: int) -> Masking:
    assert special.mask is not None
    return Masking(
        noise=config.masked.noise,
        mask=special.mask,
        ordinary=np.setdiff1d(np.arange(vocabulary_size), special.ids),
    )
