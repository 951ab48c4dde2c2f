"""A judge with planted biases behind a real HTTP server: each bias is measured, and how fast verdicts come.

The scripted judge takes 50 milliseconds for a reply. The peer asks the same questions by the `openai` client, one
after the other. Both must have the same verdicts, and each planted bias must lie in its interval.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.harness import Comparison, Outcome
from components.alignment.rewards.agreement import figures_of
from components.alignment.rewards.chat_judge import ComparingJudge
from components.alignment.rewards.constitution import read_constitution
from components.alignment.rewards.verifier import VerifierJudge
from components.inference.endpoint import Chat
from tests.alignment.rewards.planted import OWN, planted, planted_pairs
from tests.alignment.rewards.scripted_judge import Shown, scripted_judge

COMPARISON = Comparison(
    name="judge_biases", unit="verdicts/s", peers={"openai_loop": 3.0}, peers_in_our_environment=True
)
BIASES = ("position", "length", "self")
STRENGTH = 0.6
REPLY_SECONDS = 0.05


def prepare(folder: Path) -> None:
    """Nothing: the pairs and the judge are made by rules."""


def measure(client: Callable[[str, str], Chat]) -> Outcome:
    """Verdicts a second by a client of an address and a model; the biases that they show."""
    pairs, constitution = planted_pairs(), read_constitution()
    programs = VerifierJudge(constitution).judge(pairs)
    seconds, answer = 0.0, {}
    for bias in BIASES:

        def reply(shown: Shown, bias: str = bias) -> str:
            time.sleep(REPLY_SECONDS)
            return planted(bias, STRENGTH, shown)

        with scripted_judge(reply) as server:
            judge = ComparingJudge(client(server.url, OWN), constitution)
            started = time.perf_counter()
            verdicts = judge.judge(pairs)
            seconds += time.perf_counter() - started
        figures = asdict(figures_of(judge, pairs, verdicts, programs))
        answer[bias] = {"grades": [each.grade for each in verdicts], "estimate": figures[f"{bias}_bias"]}
    return Outcome(figure=len(BIASES) * len(pairs) / seconds, answer=answer)


def agree(folder: Path, ours: dict[str, Any], peer: dict[str, Any]) -> str:
    """The same verdicts on both sides, and every planted bias in its interval."""
    if ours != peer:
        raise ValueError("the same judge has other verdicts by the other client")
    truth = 0.5 + STRENGTH / 2
    for bias in BIASES:
        estimate = ours[bias]["estimate"]
        if not estimate["low"] <= truth <= estimate["high"]:
            raise ValueError(f"{bias} bias: planted {truth}, measured {estimate}")
    said = ", ".join(
        f"{bias} {ours[bias]['estimate']['value']:.2f} ({ours[bias]['estimate']['low']:.2f} to "
        f"{ours[bias]['estimate']['high']:.2f})"
        for bias in BIASES
    )
    return f"planted {truth:.2f}, measured {said}; n {estimate['n']} each"
