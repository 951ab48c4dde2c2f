"""One instruction: what is asked, the answer to learn, and how an answer is verified; and a table of many."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import polars as pl

from components.alignment.examples.examples import Example

TABLE = "instructions.parquet"
Use = Literal["tuning", "heldout", "paraphrase", "composition", "pairs"]
"""tuning: learned from; heldout: measured by likelihood; paraphrase, composition: answered and verified, of wordings
and compositions that are never learned; pairs: sampled from for preferences. No prompt has two uses."""
Kind = Literal["function", "docstring", "tests", "fix", "edit", "chat"]
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """A prompt and its answer.

    kind          of a function: `prompt` + newline + `answer` is its source, and `examples` can be run
    source        where it is from: `corpus`, `curriculum`, or the name of a file
    level         of the curriculum; elsewhere empty
    history       turns before the prompt: a system text, earlier questions and answers
    preamble      imports of the standard library that the function may need
    known_names   names of its module; None where they are not known
    """

    name: str
    prompt: str
    answer: str
    document: str = ""
    kind: Kind = "function"
    use: Use = "tuning"
    source: str = "corpus"
    level: str = ""
    composition: str = ""
    licence: str | None = None
    examples: tuple[Example, ...] = ()
    preamble: str = ""
    known_names: frozenset[str] | None = None
    history: tuple[Message, ...] = ()

    @property
    def messages(self) -> list[Message]:
        """The whole conversation, which the answer ends."""
        return [
            *self.history,
            Message(role="user", content=self.prompt),
            Message(role="assistant", content=self.answer),
        ]


_TURN = pl.Struct({"role": pl.String, "content": pl.String})
_EXAMPLE = pl.Struct({"source": pl.String, "want": pl.String, "error": pl.String})
SCHEMA = pl.Schema(
    {
        **{each.name: pl.String() for each in fields(Instruction)},
        "examples": pl.List(_EXAMPLE),
        "known_names": pl.List(pl.String),
        "history": pl.List(_TURN),
    }
)


def to_table(instructions: Iterable[Instruction]) -> pl.DataFrame:
    """One row for each, in their order."""
    rows = []
    for each in instructions:
        known = None if each.known_names is None else sorted(each.known_names)
        rows.append({**asdict(each), "known_names": known})
    return pl.DataFrame(rows, schema=SCHEMA)


def read_instructions(directory: Path, uses: Sequence[Use], *, kind: Kind | None = None) -> list[Instruction]:
    """Those of some uses, and of one kind if one is named, in the order of the table."""
    table = pl.scan_parquet(directory / TABLE).filter(pl.col("use").is_in(uses))
    if kind is not None:
        table = table.filter(pl.col("kind") == kind)
    return [_instruction(row) for row in table.collect().iter_rows(named=True)]


def _instruction(row: dict[str, Any]) -> Instruction:
    known = row["known_names"]
    return Instruction(
        **{
            **row,
            "examples": tuple(Example(**each) for each in row["examples"]),
            "known_names": None if known is None else frozenset(known),
            "history": tuple(Message(**each) for each in row["history"]),
        }
    )
