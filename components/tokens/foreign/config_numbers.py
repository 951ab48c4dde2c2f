"""The numbers of a foreign configuration, bounded before a library builds a model of that size."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.core.errors import DataError

# What a library builds one by one, so that a number without bound takes all memory: at most one for each tensor, or so.
BUILT_ONE_BY_ONE = ("layer", "expert", "head_dim")
LARGEST = 2**31


def check_numbers(config: dict[str, Any], num_tensors: int, where: Path) -> None:
    """Raise DataError for numbers that no model of these weights has. `where` is the file, for the message."""
    for name, value in _numbers(config):
        bound = max(4096, num_tensors) if any(each in name for each in BUILT_ONE_BY_ONE) else LARGEST
        if not -bound <= value <= bound:
            raise DataError(
                f"{where}: {name} is {value}, needed at most {bound}; needed the configuration of these "
                f"{num_tensors} tensors"
            )


def _numbers(content: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """Every whole number of a configuration beside the key that it stands under."""
    if isinstance(content, dict):
        for key, each in content.items():
            yield from _numbers(each, str(key))
    elif isinstance(content, list):
        for each in content:
            yield from _numbers(each, name)
    elif isinstance(content, int) and not isinstance(content, bool):
        yield name, content
