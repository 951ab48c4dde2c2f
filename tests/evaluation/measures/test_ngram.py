"""The n-gram model against interpolated Kneser-Ney as it is written down, counted in dictionaries."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.evaluation.measures.ngram import NgramModel

VOCABULARY = 7
ORDER = 3
Gram = tuple[int, ...]


class Written:
    """Kneser-Ney by its definition: counts of the highest order, kinds of left neighbours below it."""

    def __init__(self, tokens: Sequence[int], order: int) -> None:
        grams = [tuple(tokens[end - order : end]) for end in range(order, len(tokens) + 1)]
        self.counts: list[Counter[Gram]] = [Counter(grams)]
        for _ in range(order - 1):
            self.counts.insert(0, Counter(gram[1:] for gram in self.counts[0]))

    def probability(self, context: Gram, token: int) -> float:
        lower = self.probability(context[1:], token) if context else 1 / VOCABULARY
        counts = self.counts[len(context)]
        follow = {gram[-1]: count for gram, count in counts.items() if gram[:-1] == context}
        if not follow:
            return lower
        kinds = Counter(counts.values())
        discount = kinds[1] / (kinds[1] + 2 * kinds[2]) if kinds[1] and kinds[2] else 0.5
        own = max(follow.get(token, 0) - discount, 0) + discount * len(follow) * lower
        return own / sum(follow.values())


@given(
    st.lists(st.integers(0, VOCABULARY - 1), min_size=ORDER, max_size=60),
    st.lists(st.integers(0, VOCABULARY - 1), min_size=2, max_size=8),
)
def test_probabilities_are_those_of_the_definition(training: list[int], sequence: list[int]) -> None:
    model, written = NgramModel(np.array(training, dtype=np.uint16), VOCABULARY, ORDER), Written(training, ORDER)
    wanted = [
        math.log(written.probability(tuple(sequence[max(0, at - ORDER + 1) : at]), sequence[at]))
        for at in range(1, len(sequence))
    ]
    assert model.log_probs(sequence) == pytest.approx(wanted, rel=1e-12)


@given(st.lists(st.integers(0, VOCABULARY - 1), min_size=5, max_size=80), st.integers(0, 2**31))
def test_probabilities_of_what_may_follow_add_up_to_one(training: list[int], seed: int) -> None:
    context = np.random.default_rng(seed).integers(0, VOCABULARY, 4).tolist()
    model = NgramModel(np.array(training), VOCABULARY, 5)
    total = sum(math.exp(model.log_probs([*context, token])[-1]) for token in range(VOCABULARY))
    assert total == pytest.approx(1, abs=1e-12)


def test_what_longer_contexts_tell_is_found() -> None:
    """A walk in which two tokens before decide: more come near its entropy of 1 bit, one does not."""
    generator = np.random.default_rng(0)
    tokens = [0, 1]
    for _ in range(60_000):
        tokens.append((tokens[-1] * 3 + tokens[-2] * 5 + int(generator.integers(2))) % 64)
    held_out = tokens[50_000:]
    bits = {
        order: -NgramModel(np.array(tokens[:50_000]), 64, order).log_probs(held_out).mean() / math.log(2)
        for order in (2, 3, 5)
    }
    assert 1 <= bits[3] < 1.2
    assert bits[2] > 4
    assert bits[5] < 1.6


def test_too_few_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="found 4 training tokens, needed at least 5 to count 5-grams"):
        NgramModel(np.arange(4), VOCABULARY, 5)
