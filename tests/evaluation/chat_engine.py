"""An engine that answers by a rule on the words that it is asked: what a model would have to learn, without it."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from components.inference.engine import Completion, Engine, Sampling
from components.tokens.encoding.codec import TextCodec


class ChatEngine(Engine):
    """Answers each prompt with what `answer` makes of its text; `asked` are the prompts so far."""

    name = "chat"

    def __init__(self, codec: TextCodec, answer: Callable[[str], str], context_tokens: int = 10_000) -> None:
        self.context_tokens = context_tokens
        self.vocabulary_size = codec.vocabulary_size
        self.asked: list[list[int]] = []
        self._codec = codec
        self._answer = answer

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, stop_ids: Sequence[int]
    ) -> list[list[Completion]]:
        """See Engine.generate."""
        self.asked += map(list, prompts)
        texts = [self._answer(self._codec.decode(each)) for each in prompts]
        tokens = [tuple(self._codec.encode(text)[: sampling.max_new_tokens]) for text in texts]
        return [[Completion(tokens=each, finish_reason="stop")] for each in tokens]

    def score(self, sequences: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        """Every token is as likely as any other."""
        chance = -np.log(self.vocabulary_size)
        return [np.full(len(each) - 1, chance, np.float32) for each in sequences]

    def close(self) -> None:
        """Nothing to free."""
