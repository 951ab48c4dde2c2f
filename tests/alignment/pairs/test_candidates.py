"""Samples: what is a loop, what no pair may prefer, which of equal texts counts."""

import numpy as np
import pytest

from components.alignment.examples.instruction import Instruction
from components.alignment.pairs.candidates import Sample, distinct, is_loop
from components.inference.engine import Completion

PROMPT = Instruction(
    document="d", name="f", prompt="def f():", answer="", examples=(), preamble="", known_names=frozenset()
)
RANDOM = np.random.default_rng(0).permutation(400).tolist()


def sampled(answer: str, *ids: int, stop_id: int | None = 8, temperature: float = 0.5, checkpoint: str = "t") -> Sample:
    completion = Completion(
        tokens=ids,
        finish_reason="length" if stop_id is None else "stop",
        stop_id=stop_id,
        log_probs=np.full(len(ids) + (stop_id is not None), -0.5, np.float32),
    )
    return Sample(
        instruction=PROMPT,
        prompt_ids=(6, 20, 8, 7),
        completion=completion,
        answer=answer,
        temperature=temperature,
        checkpoint=checkpoint,
    )


@pytest.mark.parametrize(
    ("tokens", "loop"),
    [
        ([], False),
        ([5] * 11, False),
        ([5] * 12, True),
        ([*RANDOM[:36], *[5] * 12], True),
        ([*RANDOM[:60], *[401] * 12], False),  # a sixth of it
        ([*RANDOM[:20], *RANDOM[50:60] * 2], False),  # two copies
        ([*RANDOM[:20], *RANDOM[50:60] * 3], True),
        ([*RANDOM[:20], *RANDOM[50:60] * 3, *RANDOM[50:57]], True),  # the last copy is cut
        ([*RANDOM[50:60] * 3, *RANDOM[:20]], False),  # it found out of it
        (RANDOM, False),
    ],
)
def test_a_loop_is_a_repeated_end(tokens: list[int], loop: bool) -> None:
    assert is_loop(tokens) is loop


def test_what_no_pair_may_prefer_is_named() -> None:
    assert sampled("return 1", 1, 2).defect == ""
    assert sampled(" \n", 1, 2).defect == "empty"
    assert sampled("return", 1, 2, stop_id=None).defect == "cut"
    assert sampled("aaa", *[5] * 12).defect == "loop"


def test_of_equal_texts_the_one_that_ended_counts_then_the_coolest() -> None:
    cut, warm, cool = (
        sampled("return 1", 1, 2, stop_id=None, temperature=0.1),
        sampled("return 1", 3, temperature=0.8),
        sampled("return 1", 1, 2, temperature=0.3),
    )
    other = sampled("return 2", 4, temperature=0.2, checkpoint="b")
    assert distinct([cut, warm, cool, other]) == [other, cool]
    assert cool.completion.ids == (1, 2, 8) and cut.completion.ids == (1, 2)
    assert cool.log_prob == -1.5
