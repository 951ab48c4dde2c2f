"""SFTTrainer as it comes."""

from functools import partial

from benchmarks.alignment.trl_tuning import run_with

run = partial(run_with)
