"""What a run reads at each step, as numbers: batches, places, windows. Pure functions of what is recorded. No torch.

A batch has a number, and a step reads the next number that is not skipped: step s reads batch number_of_batch(s), which
is places number * batch_samples onwards. Phases of the mixture begin at steps; numbers that a run skips later lie
behind what it has read, so a phase that has begun never moves.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.core.errors import ArtifactError, DataError
from components.tokens.shards.source_mixture import Phase
from components.tokens.shards.token_store import TokenStore
from components.tokens.shards.windows import Source, Windows
from components.training.config import PretrainConfig
from components.training.engine.batches.batch import number_of_batch
from components.training.parameters.mixture import MixtureConfig


def steps_of_batches(numbers: NDArray[np.int64], skipped: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The step that reads each batch, and whether any does, both (numbers,): the inverse of number_of_batch."""
    passed = np.array(skipped, dtype=np.int64)
    return numbers - np.searchsorted(passed, numbers), ~np.isin(numbers, passed)


def phases_of(
    mixture: MixtureConfig, batch_samples: int, decay_start_step: int | None, skipped: Sequence[int]
) -> list[Phase] | None:
    """The mixture's phases by place; None for the one order of all tokens.

    A decay that is not decided yet has no phase; one that is takes the place of all phases behind it.
    """
    weights = {0: mixture.phases[0].weights} if mixture.phases else {}
    for phase in mixture.phases:
        step = decay_start_step if phase.from_step == "decay" else phase.from_step
        if step is not None:
            weights = {start: each for start, each in weights.items() if start < step} | {step: phase.weights}
    places = [number_of_batch(step, skipped) * batch_samples if step else 0 for step in weights]
    return [
        Phase(first_place=place, weights=each) for place, each in zip(places, weights.values(), strict=True)
    ] or None


def windows_of_run(
    sources: Sequence[Source],
    mixture: MixtureConfig,
    *,
    sequence_length: int,
    batch_samples: int,
    seed: int,
    decay_start_step: int | None,
    skipped: Sequence[int],
) -> Windows:
    """Windows and the order in which a run reads them. Raises DataError where mixture and tokens do not fit."""
    phases = phases_of(mixture, batch_samples, decay_start_step, skipped)
    try:
        return Windows(sources, sequence_length, phases, seed)
    except ValueError as error:
        raise DataError(f"pretrain.mixture: {error}") from error


def check_reading(config: PretrainConfig, tokens: Path, sequence_length: int) -> None:
    """Raise DataError when a phase of the mixture does not fit the sources of the training tokens, or a document that
    is to be skipped is not among them."""
    store = TokenStore(tokens, "train")
    for phase in config.mixture.phases:
        windows_of_run(
            store.sources,
            MixtureConfig(phases=(phase.model_copy(update={"from_step": 0}),)),
            sequence_length=sequence_length,
            batch_samples=1,
            seed=0,
            decay_start_step=None,
            skipped=(),
        )
    if config.skip.documents:
        try:
            store.rows_of(config.skip.documents)
        except ArtifactError as error:
            raise DataError(f"pretrain.skip.documents: {error}; leave it out") from error


def reads_by_source(
    windows: Windows, *, steps: int, batch_samples: int, skipped: Sequence[int]
) -> dict[str, dict[str, float]]:
    """Tokens read and epochs of each source in a run of so many steps; of all tokens without a mixture."""
    last = number_of_batch(steps - 1, skipped) + 1 if steps else 0
    counts = windows.mixture.counts(last * batch_samples)
    for number in (each for each in skipped if each < last):
        counts = counts - windows.mixture.counts((number + 1) * batch_samples)
        counts = counts + windows.mixture.counts(number * batch_samples)
    return {
        name or "all": {"tokens": int(count) * windows.length, "epochs": round(count / max(1, size), 6)}
        for name, count, size in zip(windows.names, counts.tolist(), windows.counts.tolist(), strict=True)
    }
