"""Where a text that is longer than the context is cut into windows that overlap by half."""

from collections.abc import Iterator


def strided_windows(num_predictions: int, context: int) -> Iterator[tuple[int, int, int]]:
    """(first input, first scored prediction, end) of each window; every prediction is scored in exactly one."""
    end = min(context, num_predictions)
    yield 0, 0, end
    while end < num_predictions:
        scored = end
        end = min(end + context // 2, num_predictions)
        yield end - context, scored, end
