"""The comparisons of inference refuse answers that are not the same."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.evaluation import generation, likelihood


def completions(different: int, tokens: int = generation.NEW_TOKENS) -> dict[str, Any]:
    """What a side wrote, `different` of 64 prompts otherwise."""
    written = [[number] * tokens for number in range(generation.PROMPTS)]
    return {"completions": [[-1] * tokens] * different + written[different:], "engine": "ctranslate2", "threads": 1}


def scores(*found: float) -> dict[str, Any]:
    return {"scores": list(found), "engine": "ctranslate2", "threads": 1, "batch_size": 8, "figures": {"8": 1.0}}


def test_completions_differ_in_no_more_than_ties_explain() -> None:
    told = generation.agree(Path(), completions(3), completions(0))
    assert (told["equal"], told["of"]) == (61, 64)
    with pytest.raises(ValueError, match="60 of 64 completions are equal, needed 95%"):
        generation.agree(Path(), completions(4), completions(0))
    with pytest.raises(ValueError, match="0 of 64 completions have 64 new tokens, needed all"):
        generation.agree(Path(), completions(0, tokens=63), completions(0, tokens=63))


def test_scores_differ_by_no_more_than_the_tolerance() -> None:
    told = likelihood.agree(Path(), scores(-400.03, -0.5), scores(-400.0, -0.50005))
    assert (told["items"], told["largest_difference"]) == (2, 7.5e-05)
    for mine, theirs in ((-400.05, -400.0), (-0.5, -0.5002), (float("nan"), -1.0)):
        with pytest.raises(ValueError, match="scores differ by"):
            likelihood.agree(Path(), scores(mine, -1.0), scores(theirs, -1.0))
