"""Packed rows of the same length and number as ours, blocks kept."""

from functools import partial

from benchmarks.alignment.trl_tuning import run_with
from benchmarks.alignment.tuning import BATCH_ROWS, ROW_TOKENS

run = partial(
    run_with,
    packing=True,
    max_length=ROW_TOKENS,
    per_device_train_batch_size=BATCH_ROWS,
    gradient_checkpointing=False,
)
