"""TRL's trainers as align runs one: the steps and the rates are ours, and nothing is written or sent but our figures.

Covers: one device, float32 weights, optionally with bfloat16 arithmetic.  Not covered: adapters, resuming.
"""

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from components.alignment.config import AlignConfig
from components.alignment.objectives.tuning import Steps
from components.core.events import Events
from components.tokens.encoding.special import SpecialTokens

REPORT_EVERY_STEPS = 5


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """Its tokenizer, which ends answers with <|end|> and pads with a token that no text has."""
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    special = SpecialTokens.read(directory)
    tokenizer.eos_token, tokenizer.pad_token = tokenizer.convert_ids_to_tokens([special.end, special.filler])
    return tokenizer


class Reporter(TrainerCallback):  # type: ignore[misc]  # transformers has no stubs
    """Sends the trainer's figures to the events, keeps them for history.csv, and stops when time is up."""

    def __init__(self, events: Events, steps: Steps, columns: dict[str, str]) -> None:
        self.events = events
        self.steps = steps
        self.columns = columns
        self.rows: list[dict[str, float]] = []

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.steps.decide(state.global_step)
        if state.global_step >= self.steps.last:
            control.should_training_stop = True
            control.should_log = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        row = {name: float(logs[key]) for name, key in self.columns.items() if key in (logs or {})} if logs else {}
        if "loss" not in row:
            return
        self.rows.append({"step": state.global_step, **row})
        self.events.metrics({name: value for name, value in row.items() if math.isfinite(value)}, state.global_step)
        self.events.progress(state.global_step, self.steps.last, "steps")

    @property
    def last_step(self) -> int:
        """The step of the last row; 0 without any."""
        return int(self.rows[-1]["step"]) if self.rows else 0


@contextmanager
def scratch_directory() -> Iterator[str]:
    """Where a trainer may write what nobody keeps."""
    with tempfile.TemporaryDirectory(prefix="overnight-") as directory:
        yield directory


def arguments(config: AlignConfig, steps: Steps, directory: str) -> dict[str, Any]:
    """Arguments of a trainer: no files, no network, no reports but ours."""
    return {
        "output_dir": directory,
        "max_steps": steps.num_steps,
        "per_device_train_batch_size": config.batch_size,
        "per_device_eval_batch_size": 2 * config.batch_size,
        "learning_rate": config.learning_rate,
        "max_grad_norm": 1.0,
        "seed": config.seed,
        "data_seed": config.seed,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": config.precision == "bfloat16",
        "activation_checkpointing": False,
        "save_strategy": "no",
        "eval_strategy": "no",
        "logging_steps": REPORT_EVERY_STEPS,
        "logging_first_step": True,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }


def optimizer_and_rate(
    model: PreTrainedModel, learning_rate: float, steps: Steps
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """AdamW without decay (the weights start where they should stay near) and the schedule's learning rate."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    return optimizer, LambdaLR(optimizer, steps.schedule.share)


def train(trainer: Trainer, steps: Steps) -> None:
    """Train to the last step; not at all when no time is left."""
    trainer.remove_callback(PrinterCallback)
    if steps.begin():
        trainer.train()
