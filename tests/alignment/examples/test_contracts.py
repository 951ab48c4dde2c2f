"""The suites `conversations` and `preferences` find pairs that would teach the wrong thing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from components.alignment.config import ConversationsContract, PreferencesContract
from components.alignment.examples.chat import Conversation, answer_tokens, prompt_tokens
from components.alignment.examples.example_contracts import instruction_statistics, preference_statistics
from components.alignment.examples.instruction import Instruction
from components.core.config import StepConfig
from components.core.events import Events
from components.data.contracts.contract import Contract, Verdict


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERNIGHT_STATE", str(tmp_path / "state"))


def instruction(name: str, prompt: str = "def {}(a):", answer: str = "    return a") -> Instruction:
    return Instruction(
        document="d",
        name=name,
        prompt=prompt.format(name),
        answer=answer,
        examples=(),
        preamble="",
        known_names=None,
    )


def encoded(prompt: list[int], answer: list[int]) -> Conversation:
    said = np.arange(len(prompt) + len(answer)) >= len(prompt)
    return Conversation(ids=np.array(prompt + answer, dtype=np.int32), said=said)


def broken(verdict: Verdict, statistics: pl.DataFrame) -> dict[str, list[str]]:
    """Names of pairs by the rule that they break."""
    found: dict[str, list[str]] = {rule: [] for rule in verdict.failed}
    for row, rule in verdict.rows.select("row", "rule").rows():
        found[rule].append(statistics["name"][row])
    return found


def judged(suite: str, config: StepConfig, statistics: pl.DataFrame, **parameters: float) -> dict[str, list[str]]:
    return broken(Contract(suite, config, Events(suite), parameters).judge(statistics), statistics)


def test_every_fault_of_a_pair_is_found() -> None:
    good = encoded(prompt_tokens([20, 21]), answer_tokens([22, 23]))
    pairs = {
        "good": (instruction("good"), good),
        "other": (instruction("other"), good),
        "twice": (instruction("good"), good),
        "blank": (instruction("blank", prompt=" \n"), good),
        "silent": (instruction("silent", answer="\n"), encoded(prompt_tokens([20]), answer_tokens([]))),
        "leak": (instruction("leak", prompt='def {}(a):\n    """return a"""'), good),
        "long": (instruction("long"), encoded(prompt_tokens([20] * 40), answer_tokens([22]))),
        "endless": (instruction("endless"), encoded(prompt_tokens([20]), [22, 23])),
        "turns": (instruction("turns"), encoded(prompt_tokens([20])[:-1] + prompt_tokens([20]), answer_tokens([22]))),
    }
    statistics = instruction_statistics(
        [replace(each, name=name) for name, (each, _) in pairs.items()], [row for _, row in pairs.values()]
    )
    strict = ConversationsContract(mostly={})
    assert judged("conversations", strict, statistics, max_tokens=32) == {
        "prompt_empty": ["blank"],
        "answer_empty": ["silent"],
        "prompt_repeated": ["good", "twice"],
        "tokens_out_of_range": ["long"],
        "nothing_to_learn": ["silent"],
        "roles": ["turns"],
        "end_missing": ["endless"],
        "answer_in_prompt": ["leak"],
    }
    lenient = ConversationsContract(mostly={"answer_in_prompt": 0.8})
    verdict = Contract("conversations", lenient, Events("sft"), {"max_tokens": 32}).judge(statistics)
    assert "answer_in_prompt" not in verdict.failed and verdict.by_rule()["answer_in_prompt"] == 1


def pair(name: str, chosen: str = "return 1", rejected: str = "return 2", **columns: object) -> dict[str, object]:
    row: dict[str, object] = {"chosen_tier": 2, "rejected_tier": 2, "margin": 0.4, "rejected_defect": ""}
    ids = {"chosen_ids": [*chosen.encode(), 8], "rejected_ids": [*rejected.encode(), 8], "chosen_finish": "stop"}
    return {"prompt": name, "chosen": chosen, "rejected": rejected, **row, **ids, **columns}


def test_every_fault_of_a_preference_is_found() -> None:
    rows = [
        pair("judged"),
        pair("verified", margin=-0.4, chosen_tier=3),
        pair("whole", margin=-0.4, rejected_defect="cut"),
        pair("cut", chosen_finish="length"),
        pair("same", rejected="return 1"),
        pair("empty", chosen=" "),
        pair("long", rejected="x" * 300),
        pair("upside down", chosen_tier=1),
        pair("close", margin=0.02),
        pair("same tokens", rejected_ids=[*b"return 1", 8]),
        pair(" "),
        pair("again"),
        pair("again"),
        pair("often"),
        pair("often", chosen="return 3"),
        pair("often", chosen="return 4"),
    ]
    statistics = preference_statistics(pl.DataFrame(rows))
    config = PreferencesContract(max_answer_characters=200, min_verifier_share=0.5)
    assert judged("preferences", config, statistics, min_score_gap=0.05, max_pairs_per_prompt=2) == {
        "prompt_empty": [" "],
        "pair_repeated": ["again", "again"],
        "pairs_per_prompt": ["often"] * 3,
        "chosen_empty": ["empty"],
        "chosen_cut": ["cut"],
        "answers_equal": ["same", "same tokens"],
        "answer_too_long": ["long"],
        "verifier_contradicted": ["upside down"],
        "margin_too_small": ["close"],
        "verifier_share": [],
    }


def test_no_pairs_at_all_pass_unless_some_are_asked_for() -> None:
    empty = preference_statistics(pl.DataFrame([pair("x")]).clear())
    bounds = {"min_score_gap": 0.05, "max_pairs_per_prompt": 1}
    assert judged("preferences", PreferencesContract(), empty, **bounds) == {}
    assert judged("preferences", PreferencesContract(min_pairs=1), empty, **bounds) == {"pairs": []}
