"""transformers' Trainer as it comes: float32, eager, AdamW."""

import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM
from transformers.trainer import Trainer
from transformers.trainer_callback import TrainerCallback
from transformers.training_args import TrainingArguments

from benchmarks.harness import Outcome
from benchmarks.training.hf_trainer import Windows
from benchmarks.training.speed.given import UNTIMED_STEPS


class Watch(TrainerCallback):  # type: ignore[misc]  # transformers types it as Any
    """Seconds of each step, and losses."""

    def __init__(self) -> None:
        self.begun = 0.0
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """A step starts."""
        self.begun = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """A step is done."""
        self.seconds.append(time.perf_counter() - self.begun)

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        """Losses come by the log."""
        if "loss" in logs:
            self.losses.append(logs["loss"])


def run(folder: Path) -> Outcome:
    """Tokens per second."""
    logging.disable(logging.WARNING)
    windows = torch.from_numpy(np.load(folder / "windows.npy"))
    watch = Watch()
    with tempfile.TemporaryDirectory() as out:
        trainer = Trainer(
            model=Qwen3ForCausalLM.from_pretrained(folder / "model", dtype="float32"),
            args=TrainingArguments(
                output_dir=out,
                max_steps=len(windows),
                use_cpu=True,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
                logging_steps=1,
            ),
            train_dataset=Windows(windows.flatten(0, 1)),
            callbacks=[watch],
        )
        # In the order of the file, as the other sides read it.
        trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(trainer.train_dataset)
        trainer.train()
    tokens = windows[0, :, 1:].numel()
    return Outcome(
        figure=tokens / statistics.median(watch.seconds[UNTIMED_STEPS:]),
        answer={"first_loss": watch.losses[0], "last_loss": watch.losses[-1]},
    )
