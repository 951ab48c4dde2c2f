"""What the stage sft runs: conversations packed into rows, our own engine."""

import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.alignment.tuning import BATCH_ROWS, LEARNING_RATE, MODEL, ROW_TOKENS, outcome, read
from benchmarks.harness import Outcome
from components.alignment.config import ReplayConfig, SftConfig
from components.alignment.examples.chat import Conversation
from components.alignment.examples.packing import PackedRows, order_of
from components.alignment.objectives import tuning
from components.alignment.objectives.engine_tuning import Batches, tune
from components.core.events import Events
from components.deadline.budget import Budget


def run(folder: Path) -> Outcome:
    """Useful tokens a second."""
    described, seconds = read(folder)
    conversations = [
        Conversation(
            ids=np.array(each["ids"], np.int32), said=np.arange(len(each["ids"])) >= each["prompt"], source="all"
        )
        for each in described
    ]
    order = order_of([each.source for each in conversations], {}, 0)
    rows = PackedRows(conversations, order, ROW_TOKENS, 0)
    batches = Batches(conversations=rows, windows=None, batch_rows=BATCH_ROWS, replayed=0)
    config = SftConfig(
        row_tokens=ROW_TOKENS,
        batch_rows=BATCH_ROWS,
        micro_batch_rows=BATCH_ROWS,
        replay=ReplayConfig(share=0.0),
        adamw_matrix=LEARNING_RATE,
        max_epochs=1000.0,
    )
    model = tuning.load_model(folder / MODEL)
    started = time.monotonic()
    budget = Budget(seconds=seconds, started=started)
    steps = tuning.plan_steps(config, len(conversations), budget)
    compiled = seconds >= config.compile_from_seconds
    with tempfile.TemporaryDirectory() as kept, tuning.own_cores():
        tuned = tune(model, batches, config, steps, Path(kept), Events("bench"), compiled=compiled)
    spent = time.monotonic() - started
    rows_read = tuned.steps * BATCH_ROWS
    useful = round((1 - rows.padding_share(rows_read)) * rows_read * ROW_TOKENS)
    return outcome(useful, spent, [row["loss"] for row in tuned.history])
