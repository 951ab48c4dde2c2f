"""The levels of the curriculum, from easy to hard. Light."""

from typing import Literal

Level = Literal["return", "operator", "builtin", "composition", "branch", "loop"]
LEVELS: tuple[Level, ...] = ("return", "operator", "builtin", "composition", "branch", "loop")
