"""Which rows are short enough: what is longer is left out whole and counted, never cut."""

from collections.abc import Sequence

from components.core.errors import DataError


def fitting(lengths: Sequence[int], max_tokens: int, max_too_long: float, *, where: str, bound: str) -> list[int]:
    """Indices of the rows of at most `max_tokens`, which the parameter `bound` says.

    Raises DataError when more than `max_too_long` of them are longer.
    """
    kept = [index for index, length in enumerate(lengths) if length <= max_tokens]
    dropped = len(lengths) - len(kept)
    if dropped > max_too_long * len(lengths):
        raise DataError(
            f"{where}: {dropped} of {len(lengths)} are longer than {bound} of {max_tokens} (the longest has "
            f"{max(lengths)}), max_too_long allows {max_too_long:.0%}; raise {bound}"
        )
    return kept
