"""The comparison of generation: its sides exist, get one batch, and must write the same."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.alignment import generation, tuning
from benchmarks.harness import ROOT, comparisons


def completions(different: int, tokens: int = generation.NEW_TOKENS) -> dict[str, Any]:
    """What a side wrote, `different` of 64 prompts otherwise."""
    written = [[number] * tokens for number in range(64)]
    return {"completions": [[-1] * tokens] * different + written[different:], "engine": "ctranslate2", "threads": 1}


def test_completions_differ_in_no_more_than_ties_explain() -> None:
    told = generation.agree(Path(), completions(3), completions(0))
    assert (told["equal"], told["of"]) == (61, 64)
    for mine, theirs in ((completions(4), completions(0)), (completions(0, tokens=63), completions(0, tokens=63))):
        with pytest.raises(ValueError, match="of 64 completions are equal and whole, needed 95%"):
            generation.agree(Path(), mine, theirs)


def test_every_comparison_has_its_sides() -> None:
    names = comparisons("alignment")
    generations = [f"benchmarks.alignment.generation_{batch}" for batch in (16, 64)]
    tunings = [f"benchmarks.alignment.tuning_{seconds}" for seconds in (180, 60)]
    assert names == [*generations, "benchmarks.alignment.judge_biases", *tunings]
    for name, peers in (
        *((each, generation.comparison(16).peers) for each in generations),
        *((each, tuning.comparison(60.0, 1.5).peers) for each in tunings),
    ):
        for side in ("ours", *peers):
            assert (ROOT / name.replace(".", "/") / f"{side}.py").is_file()
