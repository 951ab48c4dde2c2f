"""How a chat is written as token ids: what stands around its texts.

Ours        <|system|>text<|end|> (optional) <|user|>text<|end|><|assistant|>text<|end|>
ChatML      <|im_start|>user\\ntext<|im_end|>\\n<|im_start|>assistant\\ntext<|im_end|>\\n, and others of this kind
A text is data: it is encoded by itself, so that what it says can open or end no turn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

ROLES: Final = ("system", "user", "assistant")
Turn = tuple[str, Sequence[int]]
"""Whose it is, and the ids of its text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatForm:
    """Ids around the texts of a chat.

    begin           before the first turn
    default_system  the turns that stand first where no turn of the system does
    opening         before a turn's text, by role; a special token is among them
    closing         behind it, by role
    end             the special token that an answer ends with, the first of the assistant's closing
    """

    begin: tuple[int, ...] = ()
    default_system: tuple[int, ...] = ()
    opening: Mapping[str, tuple[int, ...]]
    closing: Mapping[str, tuple[int, ...]]
    end: int

    def turn(self, role: str, text: Sequence[int]) -> list[int]:
        """One turn, whole. Raises ValueError for a role that is not among ROLES."""
        if role not in ROLES:
            raise ValueError(f"role is {role!r}; allowed: {', '.join(ROLES)}")
        return [*self.opening[role], *text, *self.closing[role]]

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """Everything before an answer to these turns."""
        has_system = bool(turns) and turns[0][0] == ROLES[0]
        tokens = [*self.begin, *(() if has_system else self.default_system)]
        for role, text in turns:
            tokens += self.turn(role, text)
        return [*tokens, *self.opening["assistant"]]

    def answer(self, text: Sequence[int]) -> list[int]:
        """An answer and its end: what a model learns to write, and where it stops."""
        return [*text, self.end]

    def roles(self, tokens: Sequence[int]) -> list[str]:
        """Whose the turns of a chat are, in their order."""
        openings = sorted(((ids, role) for role, ids in self.opening.items()), key=lambda each: -len(each[0]))
        return [
            role
            for place in range(len(tokens))
            if (role := next((role for ids, role in openings if tuple(tokens[place : place + len(ids)]) == ids), None))
        ]

    def record(self) -> dict[str, Any]:
        """As JSON, which `read` takes."""
        return {
            "begin": list(self.begin),
            "default_system": list(self.default_system),
            "opening": {role: list(self.opening[role]) for role in ROLES},
            "closing": {role: list(self.closing[role]) for role in ROLES},
            "end": self.end,
        }

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Self:
        """Of `record`. Raises ValueError, KeyError or TypeError for anything else."""
        return cls(
            begin=tuple(map(int, record["begin"])),
            default_system=tuple(map(int, record["default_system"])),
            opening={role: tuple(map(int, record["opening"][role])) for role in ROLES},
            closing={role: tuple(map(int, record["closing"][role])) for role in ROLES},
            end=int(record["end"]),
        )

    @classmethod
    def of_single_tokens(cls, *, system: int, user: int, assistant: int, end: int) -> Self:
        """Ours: one token opens a turn, one ends it."""
        opening = dict(zip(ROLES, ((system,), (user,), (assistant,)), strict=True))
        return cls(opening=opening, closing=dict.fromkeys(ROLES, (end,)), end=end)
