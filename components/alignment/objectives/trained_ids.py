"""Checks of token ids before they are trained on: rows that would teach the wrong thing are refused.

Covers: rows without a label (their loss is 0/0), padding among what ends an answer (what masks padding by its id would
never learn to stop), ids of another tokenizer.
"""

from collections.abc import Iterable, Sequence

from components.core.errors import DataError
from components.training.engine.batches.batch import IGNORED


def check_labels(
    labels: Iterable[Sequence[int]], *, pad: int, stops: Sequence[int], vocabulary_size: int, where: str
) -> None:
    """Raise DataError for a row whose labels, shape (T,) and IGNORED where nothing is learned, cannot be trained on."""
    for number, row in enumerate(labels):
        learned = [label for label in row if label != IGNORED]
        if not learned:
            raise DataError(f"{where}: row {number} has no token to learn from, needed one at least; leave the row out")
        if strange := [label for label in learned if not 0 <= label < vocabulary_size]:
            raise DataError(
                f"{where}: row {number} has token {strange[0]}, the model's vocabulary has {vocabulary_size}; make the "
                "rows again with this model's tokenizer"
            )
        if pad in stops and pad in learned:
            raise DataError(
                f"{where}: row {number} learns to stop with token {pad}, which also fills up batches, so that what "
                "masks padding would never learn to stop; give the tokenizer a padding token of its own"
            )
