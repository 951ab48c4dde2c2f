"""Answers of a teacher as instructions: what it is asked, which of its answers are kept, and why the others are not.

A function of the corpus is asked for by its signature and docstring; the body of the reply is the answer, so that it
is verified and learned as the corpus's own bodies are. A prompt of a person's file is asked as it stands.
Covers: replies in a fence, with or without the signature and the docstring, with talk around them.
Not covered: whether an answer is right where its docstring has no example.

An answer is dropped, and counted, when it is
    failed    not given: the request was refused, or too long
    empty     white space alone
    cut       at the limit of tokens
    loop      it ends in copies of itself (components.alignment.pairs.candidates)
    broken    of a function that does not compile, or of another function
    long      a function that is longer than instructions.corpus.max_characters, as the corpus's own
    idle      a function that does nothing
    unknown   a function that reads names which neither it nor its module has
    examples  a function whose examples do not hold in the sandbox
"""

import ast
import re
import textwrap
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from components.alignment.config import InstructionsConfig
from components.alignment.examples.functions import Function, first_line, read_functions
from components.alignment.examples.instruction import Instruction
from components.alignment.pairs.candidates import CUT, EMPTY, LOOP, is_loop
from components.alignment.rewards.verifier import IDLE, Examination, Tier, keep_true_examples, verify
from components.alignment.teacher.teachers import Teacher, open_teacher
from components.core.errors import DataError
from components.data.cleaning.suite_formats import json_lines
from components.inference.endpoint import Failure
from components.inference.replies import Reply

TEACHER = "teacher"
FUNCTION = (
    "You complete Python functions. Reply with the whole function, its docstring included, in one block of code and "
    "nothing else."
)
_FENCE = re.compile(r"```[\w+-]*\n(.*?)```", re.DOTALL)
_WORD = re.compile(r"\w+|\S")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lessons:
    """What a teacher was asked and said. `record` is the same in a second run, `usage` is of this one."""

    instructions: list[Instruction]
    record: dict[str, Any]
    usage: dict[str, Any]


def lessons(config: InstructionsConfig, source: Path, tokens: Path, learned: Collection[str]) -> Lessons | None:
    """The answers of the teacher that the parameters name; None where they name none.

    learned   prompts that are learned with an answer of their own

    Raises OvernightError with one line when the teacher does not answer; what it answered until then is kept.
    """
    if config.teacher is None:
        return None
    asked = list(islice(_asked(config, source, tokens, learned), config.teacher.number))
    teacher = open_teacher(config.teacher, config.seed)
    asked = keep_true_examples(asked, timeout_seconds=config.timeout_seconds, memory_bytes=config.memory_bytes)
    replies = _replies(teacher, asked, config.teacher.max_new_tokens)
    dropped: Counter[str] = Counter()
    answered = [
        replace(each, answer=answer, source=TEACHER, licence=config.teacher.licence)
        for each, reply in zip(asked, replies, strict=True)
        if (answer := answer_in(each, reply, dropped, config.corpus.max_characters)) is not None
    ]
    functions = [(each, each.answer) for each in answered if each.kind == "function"]
    verdicts, _ = verify(functions, timeout_seconds=config.timeout_seconds, memory_bytes=config.memory_bytes)
    kept = list(_kept(answered, verdicts, dropped))
    record = {**teacher.identity, "licence": config.teacher.licence, "asked": len(asked)}
    return Lessons(instructions=kept, record={**record, "dropped": dict(sorted(dropped.items()))}, usage=teacher.usage)


def answer_in(asked: Instruction, reply: Reply | Failure, dropped: Counter[str], max_characters: int) -> str | None:
    """The answer that a reply gives, None and counted where it has none that could be learned. A function has at most
    `max_characters`."""
    if isinstance(reply, Failure):
        dropped["failed"] += 1
        return None
    if not reply.text.strip():
        problem = EMPTY
    elif is_loop(_WORD.findall(reply.text)):
        problem = LOOP
    elif reply.is_cut:
        problem = CUT
    elif asked.kind != "function":
        return reply.text.strip()
    elif (body := body_in(asked, reply.text)) is None:
        problem = "broken"
    elif len(asked.prompt) + len(body) > max_characters:
        problem = "long"
    else:
        return body
    dropped[problem] += 1
    return None


def body_in(asked: Instruction, text: str) -> str | None:
    """The body that a reply gives a function: that of the function in a fence or of the reply, else the fence or the
    reply itself where it goes on from the prompt. None where none of them parses behind the prompt."""
    codes: list[str] = [*_FENCE.findall(text), text]
    bodies, rest = [], []
    for code in codes:
        if (function := _function(code, asked.name)) is not None:
            bodies.append(_body(code, function))
        else:
            rest.append(code.removeprefix(asked.prompt).strip("\n").rstrip())
    for body in (*bodies, *rest, *(textwrap.indent(each, "    ") for each in rest)):
        tree = _parsed(f"{asked.prompt}\n{body}")
        if body and tree is not None and len(tree.body) == 1:
            return body
    return None


def _asked(config: InstructionsConfig, source: Path, tokens: Path, learned: Collection[str]) -> Iterator[Instruction]:
    """What the teacher is asked: a person's prompts, else functions that are short enough and not learned."""
    teacher = config.teacher
    assert teacher is not None
    if teacher.prompts is not None:
        yield from read_prompts(Path(teacher.prompts))
        return
    for function in read_functions(source, tokens, ["tuning"]):
        if function.prompt not in learned and len(function.prompt) <= config.corpus.max_characters:
            yield function


def read_prompts(path: Path) -> list[Instruction]:
    """A file of JSON lines with a prompt each. Raises DataError with file, line and field for one that has none."""
    prompts = []
    for number, (value, where) in enumerate(json_lines(path)):
        if not isinstance(value, dict):
            raise DataError(f"{where}: found {type(value).__name__}, needed an object with a prompt")
        prompt = value.get("prompt")
        if not isinstance(prompt, str) or not prompt.strip():
            found = "an empty text" if isinstance(prompt, str) else type(prompt).__name__
            raise DataError(f"{where}: prompt: found {found}, needed a text")
        prompts.append(Instruction(name=f"{TEACHER}:{number + 1}", prompt=prompt, answer="", kind="chat"))
    if not prompts:
        raise DataError(f'{path}: no prompt in it, needed a JSON object a line, as {{"prompt": "Say hello."}}')
    return prompts


def _replies(teacher: Teacher, asked: Sequence[Instruction], max_tokens: int) -> list[Reply | Failure]:
    """The reply to each, functions and prompts under their own system texts."""
    replies: dict[int, Reply | Failure] = {}
    for kind, system in (("function", FUNCTION), ("chat", "")):
        places = [number for number, each in enumerate(asked) if each.kind == kind]
        questions = [asked[each].prompt for each in places]
        replies |= zip(places, teacher.completions(system, questions, max_tokens) if places else [], strict=True)
    return [replies[number] for number in range(len(asked))]


def _kept(
    answered: Iterable[Instruction], verdicts: Sequence[Examination], dropped: Counter[str]
) -> Iterator[Instruction]:
    """The answers that are good as far as programs can say; the verdicts are of the functions, in their order."""
    found = iter(verdicts)
    for each in answered:
        problem = _problem(each, next(found)) if each.kind == "function" else None
        if problem is None:
            yield each
        else:
            dropped[problem] += 1


def _problem(answered: Instruction, verdict: Examination) -> str | None:
    if verdict.tier == Tier.BROKEN:
        return "broken"
    if verdict.reason == IDLE:
        return "idle"
    if answered.examples:
        return None if verdict.tier == Tier.PASSES else "examples"
    return "unknown" if verdict.tier < Tier.RESOLVES else None


def _parsed(code: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _function(code: str, name: str) -> Function | None:
    """The first function of a name in a program, if it is one."""
    tree = _parsed(code)
    functions = (each for each in ast.walk(tree or ast.Module([], [])) if isinstance(each, Function))
    return next((each for each in functions if each.name == name), None)


def _body(code: str, function: Function) -> str:
    """The body of a function without its docstring, indented by four; "" where there is none."""
    has_docstring = ast.get_docstring(function) is not None
    statements = function.body[has_docstring:]
    if not statements:
        return ""
    before = function.body[0].end_lineno if has_docstring else first_line(statements[0]) - 1
    assert before is not None
    if first_line(statements[0]) <= max(before, function.lineno):  # all in one line
        text = "\n".join(map(ast.unparse, statements))
    else:
        text = textwrap.dedent("\n".join(code.split("\n")[before : function.end_lineno]))
    return textwrap.indent(text, "    ").strip("\n")
