"""Further instructions from the corpus's functions: say what a function does, test it, mend it.

    docstring   a function without its docstring, asked for it
    tests       a function whose docstring has examples, asked for assertions that hold
    fix         a function with one operator, comparison or number changed, asked for it as it was

Each comes from a function that is learned from anyway, so nothing that is held out is shown.
"""

import ast
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from components.alignment.examples.instruction import Instruction

ASK_DOCSTRING = "Write the docstring of this function.\n\n"
ASK_TESTS = "Write assertions that test this function.\n\n"
ASK_FIX = "This function has a mistake. Write it without the mistake.\n\n"
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.Lt: ast.GtE,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


def docstring_of(instruction: Instruction) -> Instruction | None:
    """The function's code as the prompt, its docstring as the answer; None where that cannot be told apart."""
    function = _function(instruction)
    text = function and ast.get_docstring(function)
    if function is None or not text or ">>>" in text:
        return None
    return replace(instruction, prompt=ASK_DOCSTRING + _bare(function), answer=text, kind="docstring", examples=())


def assertions_of(instruction: Instruction) -> Instruction | None:
    """The function as the prompt, its examples as assertions; None without examples that are plain values."""
    examples = [each for each in instruction.examples if _alone(each.source, instruction.name) and _plain(each.want)]
    lines = [f"assert {each.source.strip()} == {each.want.strip()}" for each in examples]
    if not lines or any(each.error for each in instruction.examples):
        return None
    source = f"{instruction.prompt}\n{instruction.answer}"
    function = _function(instruction)
    if function is None:
        return None
    asked = _bare(function) if ">>>" in source else source  # the answer must not stand in the prompt
    return replace(instruction, prompt=ASK_TESTS + asked, answer="\n".join(lines), kind="tests", examples=())


def fix_of(instruction: Instruction, generator: random.Random) -> Instruction | None:
    """The function with one mistake as the prompt, without it as the answer; None where there is nothing to change."""
    function = _function(instruction)
    if function is None:
        return None
    places = [each for statement in function.body[1:] for each in ast.walk(statement) if _changeable(each)]
    if not places:
        return None
    right = ast.unparse(function)
    _change(generator.choice(places))
    return replace(instruction, prompt=ASK_FIX + ast.unparse(function), answer=right, kind="fix", examples=())


def derived(instructions: Sequence[Instruction], *, most: int, seed: int) -> Iterator[Instruction]:
    """At most so many of each kind, from the first functions that have some."""
    generator = random.Random(seed)
    makers = (docstring_of, assertions_of, lambda each: fix_of(each, generator))
    for maker in makers:
        made = 0
        for each in instructions:
            if made == most:
                break
            if (pair := maker(each)) is not None:
                made += 1
                yield pair


def _function(instruction: Instruction) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    try:
        body = ast.parse(f"{instruction.prompt}\n{instruction.answer}").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return body[0] if len(body) == 1 and isinstance(body[0], ast.FunctionDef | ast.AsyncFunctionDef) else None


def _bare(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """The source of a function without its docstring."""
    kept = {name: value for name, value in ast.iter_fields(function) if name != "body"}
    return ast.unparse(ast.fix_missing_locations(type(function)(**kept, body=function.body[1:])))


def _alone(source: str, name: str) -> bool:
    """Whether an example is one expression that reads nothing but the function."""
    try:
        tree = ast.parse(source.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} == {name}


def _plain(want: str) -> bool:
    try:
        ast.literal_eval(want.strip())
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True


def _changeable(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return type(node.value) is int
    if isinstance(node, ast.Compare):
        return type(node.ops[0]) in SWAPS
    return isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in SWAPS


def _change(node: ast.AST) -> None:
    """One mistake, in place."""
    if isinstance(node, ast.Constant):
        node.value = int(node.value) + 1  # type: ignore[arg-type]
    elif isinstance(node, ast.Compare):
        node.ops[0] = SWAPS[type(node.ops[0])]()  # type: ignore[call-overload]
    elif isinstance(node, ast.BinOp | ast.BoolOp):
        node.op = SWAPS[type(node.op)]()  # type: ignore[assignment]
