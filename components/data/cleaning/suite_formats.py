"""Formats that suites of programs are published in, each line of which becomes one kind of task.

HumanEval (Chen 2021, arXiv:2107.03374): task_id, prompt, entry_point, canonical_solution, test (defines check).
HumanEval-X (Zheng 2023, arXiv:2303.17568): task_id "JavaScript/0", prompt, canonical_solution, test, declaration.
MBPP (Austin 2021, arXiv:2108.07732), as published or sanitized: task_id, text or prompt, code, test_list,
challenge_test_list, test_setup_code, test_imports.
HumanEval+ and MBPP+ (Liu 2023, arXiv:2305.01210), as their test is written out: HumanEval, and MBPP with a test.
MultiPL-E (Cassano 2022, arXiv:2208.08227): name, language, prompt, tests, stop_tokens; canonical_solution where a suite
has one.
Every test that a line has is run. Other fields are ignored where they are no part of a test; what looks like one is
refused before the suite is run (`refuse_unread`): base_input, plus_input and atol of EvalPlus' own files among them.
Evaluation runs such suites, and clean looks for their items in the documents: both read them here.
Not covered: HumanEval-X in Go and Rust, whose tests need packages from outside; its example_test, which the published
metric leaves out: the examples of the prompt, for a model that is shown what became of them.
"""

import ast
import gzip
import json
import re
import zlib
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from components.core.errors import DataError
from components.core.text import text_of

# What HumanEval-X and MultiPL-E call the languages that can be run (components/execution/languages.py).
NAMES = {
    **{name: name for name in ("python", "javascript", "bash", "c", "cpp", "java", "go", "rust")},
    **{"js": "javascript", "sh": "bash", "py": "python", "rs": "rust", "c++": "cpp", "go_test.go": "go"},
}
X_LANGUAGES = ("python", "javascript", "cpp", "java")
# Words of a field's name that say that it decides about right and wrong, or about where a completion ends.
DECIDING = re.compile(
    r"(unit|py|doc|pre|post|sub)?tests?|testcases?|assert(s|ion|ions)?|check(s|er|ers)?|inputs?|outputs?|expect(s|ed)?|"
    r"expectations?|oracles?|cases?|examples?|verif(y|ier)|validat(e|or|ion)|judges?|graders?|answers?|[ar]?tol|"
    r"tolerances?|setup|teardown|imports?|requirements?|fixtures?|timeouts?|limits?|languages?|lang|stops?"
)
MBPP_STOPS = ("\nclass ", "\nassert", '\n"""', "\nprint", "\nif ", "\n#")


class Line(BaseModel):
    """One line of a suite's file."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    harmless: ClassVar[frozenset[str]] = frozenset()  # fields of the format that are no part of the test, as they sound

    def task(self) -> dict[str, Any]:
        """The fields of the task that the line stands for."""
        raise NotImplementedError

    def item(self) -> dict[str, Any]:
        """The same fields, as far as they were published: without what we add to run them."""
        return self.task()


class HumanEvalLine(Line):
    """Python; the body of a function follows the prompt and ends where a line begins at the margin."""

    harmless = frozenset({"example_test"})

    task_id: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    entry_point: str = Field(pattern=r"^[A-Za-z_]\w*$")
    canonical_solution: str
    test: str = Field(pattern=r"def check\(")

    def task(self) -> dict[str, Any]:
        """`check` is called by us."""
        return {**self.model_dump(exclude={"entry_point"}), "test": f"{self.test}\ncheck({self.entry_point})\n"}

    def item(self) -> dict[str, Any]:
        """Copies need not call `check`."""
        return {**self.task(), "test": self.test}


class HumanEvalXLine(Line):
    """The language stands before the slash of task_id; a body ends with the brace at the margin."""

    harmless = frozenset({"example_test"})

    task_id: str = Field(pattern=r"^[\w+]+/")
    prompt: str = Field(min_length=1)
    canonical_solution: str
    test: str = Field(min_length=1)

    @field_validator("task_id")
    @classmethod
    def _covered(cls, task_id: str) -> str:
        if (name := task_id.split("/")[0].lower()) not in X_LANGUAGES:
            raise ValueError(f"HumanEval-X in {name!r} is not covered; covered: {', '.join(X_LANGUAGES)}")
        return task_id

    def task(self) -> dict[str, Any]:
        """A brace that ends the function belongs to the completion."""
        language = self.task_id.split("/")[0].lower()
        end = {"python": "", "java": "\n    }\n}"}.get(language, "\n}")
        return {**self.model_dump(), "language": language, "end": end}


class MbppLine(Line):
    """Python; a whole module follows a task in words and its first test."""

    task_id: int
    text: str = Field("", validation_alias="text")
    prompt: str = ""
    code: str
    test_list: list[str] = Field(min_length=1)
    challenge_test_list: list[str] = []
    test_setup_code: str = ""
    test_imports: list[str] = []
    test: str = ""

    @model_validator(mode="after")
    def _worded(self) -> "MbppLine":
        if not (self.text or self.prompt):
            raise ValueError("neither text nor prompt says what is wanted")
        return self

    def task(self) -> dict[str, Any]:
        """The prompt is a docstring, as in the paper's own evaluation by InCoder and others."""
        setup = [*self.test_imports, self.test_setup_code]
        return {
            "task_id": f"MBPP/{self.task_id}",
            "prompt": f'"""\n{self.text or self.prompt}\n{self.test_list[0]}\n"""\n',
            "canonical_solution": self.code.replace("\r\n", "\n"),
            "test": "\n".join([*filter(None, [*setup, *self.test_list, *self.challenge_test_list, self.test]), ""]),
            "stops": MBPP_STOPS,
        }


class MultiPlELine(Line):
    """Any language; completions end before the first of the line's own stop tokens."""

    harmless = frozenset({"doctests"})  # how the examples of the prompt were translated

    name: str = Field(min_length=1)
    language: str
    prompt: str = Field(min_length=1)
    tests: str = Field(min_length=1)
    stop_tokens: list[str]
    canonical_solution: str | None = None

    @field_validator("language")
    @classmethod
    def _known(cls, language: str) -> str:
        if language not in NAMES:
            raise ValueError(f"language {language!r} cannot be run; known: {', '.join(NAMES)}")
        return NAMES[language]

    def task(self) -> dict[str, Any]:
        """Tests begin with what closes the function, where the stop tokens cut it off."""
        return {
            "task_id": self.name,
            "prompt": self.prompt,
            "canonical_solution": self.canonical_solution,
            "test": self.tests,
            "language": self.language,
            "stops": tuple(self.stop_tokens),
        }


def format_of(first: Any) -> type[Line]:
    """The format of a suite, by the fields that only it has on its first line."""
    fields = first if isinstance(first, dict) else {}
    if "tests" in fields:
        return MultiPlELine
    if "test_list" in fields:
        return MbppLine
    return HumanEvalXLine if "entry_point" not in fields and "declaration" in fields else HumanEvalLine


def refuse_unread(value: Any, kind: type[Line], where: str) -> None:
    """Raise DataError for a field that its format does not have and that may decide about right and wrong.

    A field without content decides nothing, nor does the language that the line has anyway.
    """
    for name, content in value.items() if isinstance(value, dict) else ():
        words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
        if name in kind.model_fields or name in kind.harmless or not content:
            continue
        if any(DECIDING.fullmatch(word.lower()) for word in words) and not _says_language(name, content, value, kind):
            raise DataError(
                f"{where}: {name} is {str(content)[:60]!r}: it looks like a part of the test, and is not run; take a "
                f"form of the suite that has it in {_tests_of(kind)}, or remove the field where it is no test"
            )


def _says_language(name: str, content: Any, value: dict[str, Any], kind: type[Line]) -> bool:
    """Whether a field only says the language that the line is in."""
    own = str(value.get("task_id", "")).split("/")[0] if kind is HumanEvalXLine else "python"
    said = re.sub(r"(?<=python)[\d.]+$", "", str(content).lower())
    return name in ("language", "lang") and NAMES.get(said) == NAMES.get(own.lower(), "python")


def _tests_of(kind: type[Line]) -> str:
    """The fields of a format that are run."""
    return " and ".join(name for name in ("test", "tests", "test_list") if name in kind.model_fields)


def never_checks(test: str) -> bool:
    """Whether a test in Python defines `check` and does not call it, so that every program would pass."""
    try:
        tree = ast.parse(test)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    called = {each.func.id for each in ast.walk(tree) if isinstance(each, ast.Call) and isinstance(each.func, ast.Name)}
    return (
        any(isinstance(each, ast.FunctionDef) and each.name == "check" for each in tree.body) and "check" not in called
    )


def json_lines(path: Path) -> list[tuple[Any, str]]:
    """Each line that is not blank as a value, with `FILE: line N`; of a gzipped file where the name ends in .gz.

    Raises DataError for a file that cannot be read, and for a line that is no JSON.
    """
    try:
        content = path.read_bytes()
        # splitlines would also cut at U+2028 and others, which JSON leaves as they are
        lines = text_of(gzip.decompress(content) if path.suffix == ".gz" else content).split("\n")
    except (OSError, EOFError, zlib.error, UnicodeError) as error:
        raise DataError(f"{path}: cannot be read as JSON lines: {error}") from error
    values = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                values.append((json.loads(line), f"{path}: line {number}"))
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}: line {number}: not JSON: {error}") from error
    return values


def mistake(error: ValidationError, where: str) -> DataError:
    """The first mistake of a line, with its field and what was found there."""
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"])) or "the line"
    excerpt = "" if first["type"] == "missing" else f" is {str(first['input'])[:60]!r}"
    message = first["msg"].removeprefix("Value error, ")
    return DataError(f"{where}: {field}{excerpt}: {message[:1].lower()}{message[1:]}")
