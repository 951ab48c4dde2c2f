"""Run the curriculum's references against their hidden tests in the sandbox, hundreds in one program."""

from collections.abc import Sequence

from components.alignment.examples.examples import program
from components.alignment.examples.instruction import Instruction
from components.core.errors import DataError
from components.execution.sandbox import Program, run_programs

TASKS_OF_PROGRAM = 500
SECONDS = 60.0
TEST = """
done = 0
for source, test in TASKS:
    scope = {}
    exec(source + test, scope)
    done += 1
assert done == len(TASKS)
"""


def check_references(instructions: Sequence[Instruction], *, memory_bytes: int) -> None:
    """Raise DataError, naming the function, unless every answer passes its own tests."""
    programs = [_program(each) for each in instructions]
    parts = [programs[start : start + TASKS_OF_PROGRAM] for start in range(0, len(programs), TASKS_OF_PROGRAM)]
    together = [
        Program(source=f"TASKS = {[(each.source, each.test) for each in part]!r}\n", test=TEST) for part in parts
    ]
    outcomes = run_programs(together, timeout_seconds=SECONDS, memory_bytes=memory_bytes)
    for number, outcome in enumerate(outcomes):
        if outcome.passed:
            continue
        alone = run_programs(parts[number], timeout_seconds=SECONDS, memory_bytes=memory_bytes)
        wrong = next((place for place, each in enumerate(alone) if not each.passed), 0)
        task = instructions[number * TASKS_OF_PROGRAM + wrong]
        raise DataError(
            f"curriculum: the reference of {task.name} fails its own tests: {outcome.detail}; correct its operation"
        )


def _program(instruction: Instruction) -> Program:
    return program(instruction.preamble, f"{instruction.prompt}\n{instruction.answer}", instruction.examples)
