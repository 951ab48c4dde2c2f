"""Answers that a checkpoint samples, as the ids that were sampled: what is scored and trained later is never encoded
again from their text.

Covers: several temperatures and checkpoints; answers that no pair may prefer: empty, in a loop, cut off.
Not covered: what an answer is worth, which the verifier and the judge say.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from components.alignment.config import PreferencesConfig
from components.alignment.examples.chat import prompt_tokens, stop_ids
from components.alignment.examples.instruction import Instruction
from components.alignment.rewards.judge import LOCAL
from components.inference.engine import Completion, Engine, Sampling
from components.tokens.encoding.codec import TextCodec

EMPTY, LOOP, CUT = "empty", "loop", "cut"
LOOP_COPIES = 3
LOOP_TOKENS = 12
LOOP_SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model that answers, and the digest of its artifact."""

    digest: str
    engine: Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One answer as it was sampled. `checkpoint` is the digest of the model that gave it, `author` its name for judges:
    LOCAL for the checkpoints here. What a reviser wrote has no log probability, and its name for both."""

    instruction: Instruction
    prompt_ids: tuple[int, ...]
    completion: Completion
    answer: str
    temperature: float
    checkpoint: str
    author: str = LOCAL

    @property
    def defect(self) -> str:
        """Why no pair may prefer it: empty, loop or cut; "" where it ended and says something."""
        if not self.answer.strip():
            return EMPTY
        if is_loop(self.completion.tokens):
            return LOOP
        return "" if self.completion.finish_reason == "stop" else CUT

    @property
    def log_prob(self) -> float | None:
        """Natural-log probability of the sampled ids under the checkpoint itself, summed; None of a revision."""
        log_probs = self.completion.log_probs
        return None if log_probs is None else float(log_probs.sum(dtype="float64"))


def is_loop(tokens: Sequence[int] | Sequence[str]) -> bool:
    """Whether an answer ends in at least LOOP_COPIES copies of one n-gram, the last of which may be cut, that are
    LOOP_SHARE of its tokens and LOOP_TOKENS at least."""
    least = max(LOOP_TOKENS, LOOP_SHARE * len(tokens))
    for size in range(1, len(tokens) // LOOP_COPIES + 1):
        length = size
        while length < len(tokens) and tokens[-length - 1] == tokens[size - length - 1]:
            length += 1
        if length >= max(least, LOOP_COPIES * size):
            return True
    return False


def sample(
    checkpoint: Checkpoint, codec: TextCodec, prompts: Sequence[Instruction], config: PreferencesConfig, seed: int
) -> list[Sample]:
    """`num_samples` answers to each prompt at each temperature, one where it is 0."""
    ids = [tuple(prompt_tokens(codec.encode(each.prompt), special=codec.special)) for each in prompts]
    samples = []
    for number, temperature in enumerate(sorted(config.temperatures)):
        sampling = Sampling(
            max_new_tokens=config.max_new_tokens,
            temperature=temperature,
            top_p=config.top_p,
            num_samples=config.num_samples if temperature else 1,
            seed=seed + number,
            log_probs=True,
        )
        answers = checkpoint.engine.generate(ids, sampling, stop_ids=stop_ids(codec.special))
        samples += [
            Sample(
                instruction=prompt,
                prompt_ids=prompt_ids,
                completion=completion,
                answer=codec.decode(completion.tokens),
                temperature=temperature,
                checkpoint=checkpoint.digest,
            )
            for prompt, prompt_ids, completions in zip(prompts, ids, answers, strict=True)
            for completion in completions
        ]
    return samples


def distinct(samples: Sequence[Sample]) -> list[Sample]:
    """One sample of each text that a prompt was answered with, in the order of the prompts, temperatures and texts.

    Of equal texts the one that ended counts, then that of the lowest temperature, then the first.
    """
    order = {each: number for number, each in enumerate(dict.fromkeys(each.instruction.prompt for each in samples))}
    kept: dict[tuple[str, str], Sample] = {}
    for each in sorted(samples, key=lambda each: (each.completion.finish_reason != "stop", each.temperature)):
        kept.setdefault((each.instruction.prompt, each.answer), each)
    return sorted(kept.values(), key=lambda each: (order[each.instruction.prompt], each.temperature, each.answer))


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One distinct answer to one prompt, and what was found about it.

    answer_ids  what was sampled, with the stop token only where one was
    finish      stop or length, as the engine says
    log_prob    of the sampled ids under the checkpoint itself (temperature 1, no nucleus), summed, nats; None of a
                revision
    score       None where the judge gave none
    defect      empty, loop or cut; "" for an answer that a pair may prefer
    """

    document: str
    name: str
    prompt: str
    answer: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    finish: str
    log_prob: float | None
    temperature: float
    checkpoint: str
    has_examples: bool
    tier: int
    verdict: str
    score: float | None
    violations: str
    judge: str
    author: str
    defect: str
