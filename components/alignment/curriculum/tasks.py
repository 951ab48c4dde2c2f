"""Tasks of the curriculum: small functions by level, with hidden tests, held out by their wording and by what they do.

    return       a constant or the argument as it is
    operator     one operator or subscript
    builtin      one call
    composition  one operation of another's result
    branch       one of two operations, by a condition
    loop         an operation on each element, perhaps of some, gathered into a number, a list or a dictionary

One composition in four of the last three levels is never trained (`composition`); of the others one wording in four
(`paraphrase`). Of the rest one prompt in four is kept for the pairs of preferences (`pairs`), the others are trained.
The programs are this module's own, so what they give is found by running them here; a sandbox checks them again.
"""

import ast
import builtins
import hashlib
import random
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from components.alignment.curriculum.levels import Level
from components.alignment.curriculum.operations import (
    BUILTINS,
    FILTERS,
    MAPPED,
    NAMES,
    OPERATIONS,
    OPERATORS,
    VALUES,
    Kind,
    Operation,
)
from components.alignment.examples.examples import Example

Use = Literal["tuning", "paraphrase", "composition", "pairs"]
HELD_OUT = 4  # one in so many
SMALLEST, LARGEST = 2, 9  # of the numbers in a task
LEAST_EXAMPLES = 3
VERBS = ("get", "compute", "make", "find")
CONSTANTS = ("0", "1", "True", "False", "None", "''", "[]", "{}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One function. `prompt` is its signature and docstring, `answer` its body; `examples` are its hidden tests."""

    level: Level
    composition: tuple[str, ...]
    use: Use
    name: str
    prompt: str
    answer: str
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Phrase:
    """An expression of a name, what it is called, and which wording that took."""

    expression: str
    words: str
    wording: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """What a level makes before its uses and tests are known."""

    takes: Kind
    argument: str
    composition: tuple[str, ...]
    wordings: tuple[int, ...]
    words: str
    body: str


def tasks(levels: Sequence[Level], seed: int) -> Iterator[Task]:
    """Tasks without end, each prompt once, the levels in turn; the same for the same seed."""
    generator = random.Random(seed)
    prompts: set[str] = set()
    misses = 0
    while misses < 1000:  # a level of few tasks runs out
        for level in levels:
            task = _task(level, MAKERS[level](generator), generator)
            if task.prompt in prompts or len(task.examples) < LEAST_EXAMPLES:
                misses += 1
                continue
            misses = 0
            prompts.add(task.prompt)
            yield task


def _task(level: Level, draft: _Draft, generator: random.Random) -> Task:
    name = "_".join(reversed(draft.composition))
    if generator.random() < 0.5 or hasattr(builtins, name):  # a function of a builtin's name would call itself
        name = f"{generator.choice(VERBS)}_{name}"
    prompt = f'def {name}({draft.argument}):\n    """Return {draft.words}."""'
    answer = textwrap.indent(draft.body, "    ")
    return Task(
        level=level,
        composition=draft.composition,
        use=_use(draft, prompt),
        name=name,
        prompt=prompt,
        answer=answer,
        examples=_examples(f"{prompt}\n{answer}\n", name, VALUES[draft.takes]),
    )


def _use(draft: _Draft, prompt: str) -> Use:
    key = "/".join(draft.composition)
    if len(draft.composition) > 1 and _number(key) % HELD_OUT == 0:
        return "composition"
    if sum(draft.wordings) % HELD_OUT == _number(f"{key} wording") % HELD_OUT and any(draft.wordings):
        return "paraphrase"
    return "pairs" if _number(prompt) % HELD_OUT == 0 else "tuning"


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def _examples(source: str, name: str, values: Sequence[object]) -> tuple[Example, ...]:
    """What the function gives for those values of its type that it takes, as an interpreter shows it."""
    scope: dict[str, Any] = {}
    exec(compile(source, name, "exec", dont_inherit=True), scope)
    examples = []
    for value in values:
        try:
            result = scope[name](value)
        except (IndexError, ValueError):  # too short for it
            continue
        examples.append(Example(source=f"{name}({value!r})\n", want="" if result is None else f"{result!r}\n"))
    return tuple(examples)


class _Operand(ast.NodeTransformer):
    """Puts an expression where `_` stands, and a number where `K` does."""

    def __init__(self, operand: ast.expr, number: int) -> None:
        self.operand = operand
        self.number = number

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id == "_":
            return self.operand
        return ast.Constant(self.number) if node.id == "K" else node


def _apply(operation: Operation, expression: str, words: str, generator: random.Random) -> _Phrase:
    number, wording = generator.randint(SMALLEST, LARGEST), generator.randrange(len(operation.wordings))
    operand = ast.parse(expression, mode="eval").body
    tree = _Operand(operand, number).visit(ast.parse(operation.expression, mode="eval"))
    return _Phrase(
        expression=ast.unparse(tree.body),
        words=operation.wordings[wording].format(x=words, k=number),
        wording=wording,
    )


def _constant(generator: random.Random) -> _Draft:
    kind = generator.choice([*NAMES])
    argument = generator.choice(NAMES[kind])
    if generator.random() < 0.5:
        constant = generator.choice([*CONSTANTS, str(generator.randint(10, 99)), repr(generator.choice(NAMES["text"]))])
        words, composition = constant, "constant"
        wording = generator.randrange(3)
        words = ("{}", "always {}", "the value {}")[wording].format(constant)
    else:
        constant, composition, wording = argument, "same", generator.randrange(3)
        words = ("{}", "{} as it is", "{} unchanged")[wording].format(argument)
    return _Draft(
        takes=kind,
        argument=argument,
        composition=(composition,),
        wordings=(wording,),
        words=words,
        body=f"return {constant}",
    )


def _chain(operations: Sequence[Operation], generator: random.Random) -> _Draft:
    """Operations one after the other, the first one of the argument."""
    takes = operations[0].takes
    argument = generator.choice(NAMES[takes])
    expression, words, wordings = argument, argument, list[int]()
    for operation in operations:
        phrase = _apply(operation, expression, words, generator)
        expression, words = phrase.expression, phrase.words
        wordings.append(phrase.wording)
    return _Draft(
        takes=takes,
        argument=argument,
        composition=tuple(each.name for each in operations),
        wordings=tuple(wordings),
        words=words,
        body=f"return {expression}",
    )


PAIRS = [
    (first, second)
    for first in OPERATIONS
    for second in OPERATIONS
    if second.takes == first.gives and second.name != first.name
]
CONDITIONS = [each for each in OPERATIONS if each.gives == "truth"]
CHOICES = [each for each in OPERATIONS if each.takes == each.gives == "integer"]


def _branch(generator: random.Random) -> _Draft:
    argument = generator.choice(NAMES["integer"])
    condition, (then, otherwise) = generator.choice(CONDITIONS), generator.sample(CHOICES, 2)
    tested, first, second = (_apply(each, argument, argument, generator) for each in (condition, then, otherwise))
    what = tested.words.removeprefix("True if ").removeprefix("True when ").removeprefix("whether ")
    wording = generator.randrange(2)
    words = ("{a} if {c}, else {b}", "{a} when {c} and {b} otherwise")[wording]
    return _Draft(
        takes="integer",
        argument=argument,
        composition=(condition.name, then.name, otherwise.name),
        wordings=(tested.wording, first.wording, second.wording, wording),
        words=words.format(a=first.words, b=second.words, c=what),
        body=f"if {tested.expression}:\n    return {first.expression}\nreturn {second.expression}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gathering:
    """How a loop keeps what it meets: before it, for each value, and how that is said of `{what}`."""

    name: str
    start: str
    each: str
    wordings: tuple[str, ...]


GATHERINGS = (
    _Gathering(
        name="total", start="total = 0", each="total += {value}", wordings=("the sum of {what}", "{what} added up")
    ),
    _Gathering(
        name="collect",
        start="result = []",
        each="result.append({value})",
        wordings=("a list of {what}", "{what} as a list"),
    ),
    _Gathering(
        name="tally",
        start="counts = {{}}",
        each="counts[{value}] = counts.get({value}, 0) + 1",
        wordings=("how often each of {what} occurs", "a dictionary that counts {what}"),
    ),
)


def _loop(generator: random.Random) -> _Draft:
    argument = generator.choice(NAMES["numbers"])
    gathering, mapped, kept = generator.choice(GATHERINGS), generator.choice(MAPPED), generator.choice(FILTERS)
    value, chosen = _apply(mapped, "each", "", generator), _apply(kept, "each", "", generator)
    wording = generator.randrange(len(gathering.wordings))
    what = f"the {value.words} of the {chosen.words} of {argument}"
    start, step = (text.format(value=value.expression) for text in (gathering.start, gathering.each))
    body = f"    {step}" if kept.name == "every" else f"    if {chosen.expression}:\n        {step}"
    return _Draft(
        takes="numbers",
        argument=argument,
        composition=(gathering.name, mapped.name, kept.name),
        wordings=(wording, value.wording, chosen.wording),
        words=gathering.wordings[wording].format(what=what),
        body=f"{start}\nfor each in {argument}:\n{body}\nreturn {start.split(' = ')[0]}",
    )


MAKERS: dict[Level, Callable[[random.Random], _Draft]] = {
    "return": _constant,
    "operator": lambda generator: _chain([generator.choice(OPERATORS)], generator),
    "builtin": lambda generator: _chain([generator.choice(BUILTINS)], generator),
    "composition": lambda generator: _chain(generator.choice(PAIRS), generator),
    "branch": _branch,
    "loop": _loop,
}
