"""One interface over every engine that runs a trained model: token ids in, token ids out.

Engines live beside this file (ctranslate2, transformers) and are opened by `components.inference.open.open_engine`.
Prompts are token ids, so that no engine has a tokenizer, a template or a special token of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from components.inference.bounds import LOWEST_TEMPERATURE, LOWEST_TOP_P, NUM_SEEDS

LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to choose the next token.

    `temperature` 0 is greedy, and so is one that float32 cannot tell from it. `top_k` 0 and `top_p` 1 take every token
    into account. With a `seed`, the same call gives the same samples on one machine, at the price of reloading the
    model in some engines; None costs nothing. `log_probs` asks for those of what was sampled, at the price of one more
    forward pass over prompts and samples.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    num_samples: int = 1
    seed: int | None = 0
    log_probs: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError, with the bounds, for a value that has no meaning."""
        for name, value, fits, bounds in (
            ("max_new_tokens", self.max_new_tokens, self.max_new_tokens >= 1, "at least 1"),
            ("temperature", self.temperature, 0 <= self.temperature <= LARGEST_FLOAT32, "at least 0 and in float32"),
            ("top_k", self.top_k, self.top_k >= 0, "at least 0"),
            ("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("num_samples", self.num_samples, self.num_samples >= 1, "at least 1"),
            ("seed", self.seed, self.seed is None or 0 <= self.seed < NUM_SEEDS, f"at least 0 and below {NUM_SEEDS}"),
        ):
            if not fits:
                raise ValueError(f"{name} is {value}, needed {bounds}")

    @property
    def is_greedy(self) -> bool:
        """Whether the most probable token is taken at every step."""
        return self.temperature < LOWEST_TEMPERATURE or self.top_k == 1

    @property
    def nucleus(self) -> float:
        """`top_p` as an engine takes it: no smaller than what still is the most probable token alone."""
        return max(self.top_p, LOWEST_TOP_P)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What one sample adds to its prompt.

    tokens     the new tokens, without the one that ended it: what the text is decoded from
    stop_id    the token that ended it; None where nothing did
    log_probs  natural-log probability of each of `ids` under the model itself, temperature 1 and no token left out,
               however it was sampled, shape (T,); None where Sampling did not ask
    """

    tokens: tuple[int, ...]
    finish_reason: Literal["stop", "length"]
    stop_id: int | None = None
    log_probs: NDArray[np.float32] | None = field(default=None, compare=False)

    @property
    def ids(self) -> tuple[int, ...]:
        """Every token that was sampled, the one that ended it included: what is scored and trained."""
        return self.tokens if self.stop_id is None else (*self.tokens, self.stop_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a model expected of a sequence of T tokens at all but the first, natural logs, shapes (T - 1,).

    log_probs      of the token that stands there, given those before it
    top_log_probs  of the most probable token; equal where it is the one that stands there
    """

    log_probs: NDArray[np.float32]
    top_log_probs: NDArray[np.float32]

    @property
    def is_top(self) -> NDArray[np.bool_]:
        """Whether the token that stands there is the most probable one."""
        return self.log_probs >= self.top_log_probs


class Engine(Protocol):
    """A loaded model. T tokens of one sequence.

    `context_tokens` is the longest sequence that the model was trained on, prompt and new tokens together; engines run
    beyond it without complaint and without sense, so callers cut their prompts. `version` is that of the weights that
    were loaded last; empty for those of the directory.
    """

    name: str
    version: str
    context_tokens: int
    vocabulary_size: int

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, stop_ids: Sequence[int]
    ) -> list[list[Completion]]:
        """`num_samples` completions for each prompt, in the order of the prompts, batched inside.

        Raises ValueError for an empty prompt and for ids outside the vocabulary. Greedy samples are all the same one.
        """
        ...

    def score(self, sequences: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        """Natural-log probability of each token given those before it, shape (T - 1,) for each sequence.

        Raises ValueError for an empty sequence and for ids outside the vocabulary.
        """
        ...

    def predict(self, sequences: Sequence[Sequence[int]]) -> list[Prediction]:
        """As `score`, with the probability of the most probable token beside it.

        Raises ValueError for an empty sequence and for ids outside the vocabulary.
        """
        ...

    def load(self, weights: Mapping[str, NDArray[np.float32]], version: str) -> None:
        """Take other weights of the same model, under transformers' names, in place of those that it has, and their
        name as its `version`.

        Raises ArtifactError for weights of another model; the engine then has those that it had.
        """
        ...

    def close(self) -> None:
        """Free the model."""
        ...


def completion_of(ids: Sequence[int], stop_ids: Sequence[int]) -> Completion:
    """The completion of sampled ids up to the first token that ends it; what follows it is padding."""
    for position, token in enumerate(ids):
        if token in stop_ids:
            return Completion(tokens=tuple(ids[:position]), finish_reason="stop", stop_id=token)
    return Completion(tokens=tuple(ids), finish_reason="length")


def with_log_probs(
    engine: Engine, prompts: Sequence[Sequence[int]], results: list[list[Completion]]
) -> list[list[Completion]]:
    """The completions of each prompt with their log probabilities, equal ones scored once.

    Scored anew because what engines report while they sample is divided by the temperature (ctranslate2 4.8, without a
    norm), and logits of the whole vocabulary at each step are 200 MiB for 1,000 tokens of 49,152.
    """
    sequences = {(number, each.ids): None for number, row in enumerate(results) for each in row if each.ids}
    scores = engine.score([[*prompts[number], *ids] for number, ids in sequences])
    found = {key: score[-len(key[1]) :] for key, score in zip(sequences, scores, strict=True)}
    none = np.zeros(0, dtype=np.float32)
    return [
        [replace(each, log_probs=found.get((number, each.ids), none)) for each in row]
        for number, row in enumerate(results)
    ]


def check_ids(sequences: Sequence[Sequence[int]], vocabulary_size: int) -> None:
    """Raise ValueError unless every sequence has tokens and all of them are in the vocabulary."""
    for index, sequence in enumerate(sequences):
        if not len(sequence):
            raise ValueError(f"sequence {index} has no token; start it with <|endoftext|>")
        low, high = min(sequence), max(sequence)
        if low < 0 or high >= vocabulary_size:
            raise ValueError(
                f"sequence {index} has token {low if low < 0 else high}, the vocabulary has {vocabulary_size}"
            )


def length_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Indices in the order of their lengths, in batches of at most `batch_tokens` with padding, each at least one."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if batches and lengths[index] * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
