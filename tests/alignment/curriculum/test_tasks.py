"""The curriculum: tasks that are held out, and references that pass their own tests."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest

from components.alignment import instructions
from components.alignment.config import CurriculumConfig
from components.alignment.curriculum.levels import LEVELS
from components.alignment.curriculum.operations import OPERATIONS, VALUES
from components.alignment.curriculum.references import check_references
from components.alignment.curriculum.tasks import PAIRS, Task, tasks
from components.alignment.examples.instruction import Instruction
from components.core.errors import DataError

MEMORY = 2**28


@pytest.fixture(scope="module")
def some() -> list[Task]:
    return list(islice(tasks(LEVELS, 0), 1800))


def instruction(task: Task) -> Instruction:
    return Instruction(name=task.name, prompt=task.prompt, answer=task.answer, examples=task.examples)


def test_the_same_seed_gives_the_same_tasks_and_no_prompt_twice(some: list[Task]) -> None:
    assert list(islice(tasks(LEVELS, 0), 60)) == some[:60] != list(islice(tasks(LEVELS, 1), 60))
    assert len({each.prompt for each in some}) == len(some)
    assert {each.level for each in some} == set(LEVELS)


def test_a_composition_is_learned_or_held_out_and_never_both(some: list[Task]) -> None:
    held = {each.composition for each in some if each.use == "composition"}
    learned = {each.composition for each in some if each.use != "composition"}
    assert held and not held & learned
    assert all(len(each) > 1 for each in held), "what a composition is made of is learned by itself"
    alone = {name for each in learned if len(each) == 1 for name in each}
    pairs = {
        name for each in some if each.level == "composition" and each.use == "composition" for name in each.composition
    }
    assert pairs <= alone


def test_every_use_has_a_fair_share(some: list[Task]) -> None:
    shares = {use: sum(each.use == use for each in some) / len(some) for use in ("tuning", "paraphrase", "pairs")}
    assert shares["tuning"] > 0.4 and min(shares.values()) > 0.1


def test_references_pass_their_hidden_tests_in_the_sandbox(some: list[Task]) -> None:
    instructions = [instruction(each) for each in some[:120]]
    check_references(instructions, memory_bytes=MEMORY)
    wrong = replace(instructions[7], answer="    return 'something else'")
    with pytest.raises(DataError, match=rf"reference of {wrong.name} fails its own tests"):
        check_references([*instructions[:7], wrong, *instructions[8:]], memory_bytes=MEMORY)


def test_operations_fit_together() -> None:
    assert len({each.name for each in OPERATIONS}) == len(OPERATIONS)
    assert all(first.gives == second.takes for first, second in PAIRS)
    assert all(len(set(each.wordings)) == len(each.wordings) >= 3 for each in OPERATIONS)
    assert {each.takes for each in OPERATIONS} <= VALUES.keys()


def test_what_the_levels_cannot_give_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """One level has tasks by the ten thousand and no compositions."""
    made = 0

    def counted(*arguments: object) -> Iterator[Task]:
        nonlocal made
        for made, task in enumerate(tasks(*arguments), start=1):  # type: ignore[arg-type]  # noqa: B007
            yield task

    monkeypatch.setattr(instructions, "tasks", counted)
    config = CurriculumConfig(levels=("operator",), tuning=20, heldout=5, pairs=5)
    uses = Counter(each.use for each in instructions.curriculum(config, 0))
    assert uses == {"tuning": 20, "paraphrase": 5, "pairs": 5}
    assert made < 1000
