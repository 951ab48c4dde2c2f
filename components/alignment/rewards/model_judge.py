"""A local model as judge: by the probability that it gives an answer, or by what it writes when it is asked."""

import math
from collections.abc import Sequence

from components.alignment.examples.chat import answer_tokens, prompt_tokens, stop_ids
from components.alignment.rewards.constitution import Constitution
from components.alignment.rewards.judge import HIGHEST_GRADE, LOCAL, AnswerPair, Verdict, verdict_of_grade
from components.inference.endpoint import Failure
from components.inference.engine import Engine, Sampling
from components.tokens.encoding.codec import TextCodec

Score = float | None


class LikelihoodJudge:
    """The model judges itself: how probable it finds an answer when it has read the constitution.

    Covers: answers whose order means nothing.  Not covered: its liking for its own and for common answers.
    """

    def __init__(
        self, engine: Engine, codec: TextCodec, constitution: Constitution, *, context_tokens: int, min_gap: float
    ) -> None:
        """`min_gap` is the difference of two scores from which on one answer is the better one."""
        self.name = "likelihood"
        self.model: str | None = LOCAL
        self._engine = engine
        self._codec = codec
        self._constitution = constitution
        self._context_tokens = context_tokens
        self._min_gap = min_gap
        self._scores: dict[tuple[str, str], Score] = {}

    def judge(self, pairs: Sequence[AnswerPair]) -> list[Verdict]:
        """See PairwiseJudge.judge. A difference of `min_gap` is negligible, one of eight times that significant."""
        firsts = self.scores([(each.prompt, each.first) for each in pairs])
        seconds = self.scores([(each.prompt, each.second) for each in pairs])
        return [self._verdict(first, second) for first, second in zip(firsts, seconds, strict=True)]

    def scores(self, answers: Sequence[tuple[str, str]]) -> list[Score]:
        """exp(mean log probability of an answer's tokens and its end), for each (prompt, answer), less the penalty of
        the constitution. Where the context is too short for all, the constitution is cut; where even prompt and answer
        do not fit, there is no score.
        """
        new = [each for each in dict.fromkeys(answers) if each not in self._scores]
        system = self._codec.encode(self._constitution.text)
        sequences: dict[tuple[str, str], tuple[list[int], int]] = {}
        for prompt, text in new:
            target = answer_tokens(self._codec.encode(text), special=self._codec.special)
            encoded = self._codec.encode(prompt)
            least = prompt_tokens(encoded, system[:1], special=self._codec.special)
            room = 1 + self._context_tokens - len(target) - len(least)
            head = prompt_tokens(encoded, system[: max(0, room)], special=self._codec.special)
            if len(head) + len(target) <= self._context_tokens:
                sequences[prompt, text] = [*head, *target], len(target)
        logarithms = self._engine.score([tokens for tokens, _ in sequences.values()])
        self._scores |= dict.fromkeys(new)
        for key, (_, length), of_tokens in zip(sequences, sequences.values(), logarithms, strict=True):
            mean = float(of_tokens[-length:].mean())
            self._scores[key] = math.exp(mean) - self._constitution.penalty(key[1])
        return [self._scores[each] for each in answers]

    def _verdict(self, first: Score, second: Score) -> Verdict:
        if first is None or second is None:
            return Verdict(outcome="failed", reason="prompt and answer are longer than the context")
        ratio = abs(first - second) / max(self._min_gap, 1e-9)
        grade = 0 if ratio < 1 else min(HIGHEST_GRADE, 1 + int(math.log2(ratio)))
        return verdict_of_grade(math.copysign(grade, first - second) if grade else 0.0)


class LocalChat:
    """The model itself, asked in words; see endpoint.Chat."""

    def __init__(self, engine: Engine, codec: TextCodec) -> None:
        self.name = "generation"
        self.model = LOCAL
        self._engine = engine
        self._codec = codec

    def replies(self, system: str, questions: Sequence[str], max_tokens: int) -> list[str | Failure]:
        """See Chat.replies. A question that leaves no room for a reply of `max_tokens` fails alone."""
        special = self._codec.special
        instruction = self._codec.encode(system)
        prompts = [prompt_tokens(self._codec.encode(each), instruction, special=special) for each in questions]
        room = self._engine.context_tokens - max_tokens
        asked = [each for each in prompts if len(each) <= room]
        sampling = Sampling(max_new_tokens=max_tokens)
        completions = iter(self._engine.generate(asked, sampling, stop_ids=stop_ids(special)) if asked else [])
        return [
            self._codec.decode(next(completions)[0].tokens)
            if len(prompt) <= room
            else Failure(f"{len(prompt)} tokens to read and {max_tokens} to write are more than the context")
            for prompt in prompts
        ]
