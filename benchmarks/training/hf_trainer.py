"""transformers' Trainer as it comes: float32, eager, AdamW at 5e-5 with a linear decay, eight samples a step."""

import logging
import tempfile
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers.trainer import Trainer
from transformers.trainer_callback import TrainerCallback, TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from benchmarks.harness import Outcome
from benchmarks.training.budget import Budget
from benchmarks.training.corpus import BATCH_SAMPLES, SEQUENCE_LENGTH, batches, held_out, run_number
from benchmarks.training.models import flops_per_token, llama, matrix_parameters
from components.training.engine.validation import bits_per_byte, nats

LAYERS, WIDTH = 4, 128
MAX_STEPS = 20_000


class Windows(Dataset):  # type: ignore[type-arg]
    """Windows in the order in which they are asked for."""

    def __init__(self, windows: torch.Tensor) -> None:
        self.windows = windows

    def __len__(self) -> int:
        """Samples."""
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Inputs are labels: the model shifts them."""
        return {"input_ids": self.windows[index][:-1], "labels": self.windows[index][:-1]}


class Spend(TrainerCallback):  # type: ignore[misc]  # transformers types it as Any
    """Starts the budget before the first step and ends the run when it is spent."""

    def __init__(self, budget: Budget, flops_per_step: float) -> None:
        self.budget = budget
        self.flops_per_step = flops_per_step

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """The clock starts with the first step."""
        if state.global_step == 0:
            self.budget.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Stop when everything is spent."""
        control.should_training_stop = self.budget.share(state.global_step * self.flops_per_step) >= 1


def train(folder: Path, budget: Budget) -> Outcome:
    """Bits per byte on the held-out documents."""
    logging.disable(logging.WARNING)
    seed = run_number(folder)
    torch.manual_seed(seed)
    model = llama(LAYERS, WIDTH)
    per_step = flops_per_token(LAYERS, WIDTH, matrix_parameters(model)) * BATCH_SAMPLES * SEQUENCE_LENGTH
    windows = torch.from_numpy(batches(folder, MAX_STEPS, seed)).flatten(0, 1)
    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            output_dir=out, max_steps=MAX_STEPS, seed=seed, use_cpu=True, report_to=[], save_strategy="no",
            disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        trainer = Trainer(
            model=model, args=arguments, train_dataset=Windows(windows), callbacks=[Spend(budget, per_step)]
        )
        # Its default, a line from 5e-5 to zero, over the budget instead of over steps that nobody knows beforehand.
        trainer.create_optimizer()
        trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            trainer.optimizer, lambda step: max(0.0, 1 - budget.share(step * per_step)) if step else 1.0
        )
        trainer.train()
    documents, num_bytes = held_out(folder)
    model.eval()
    total = nats(model, documents, SEQUENCE_LENGTH, 0, "cpu")
    steps = trainer.state.global_step
    return Outcome(
        figure=bits_per_byte(total, num_bytes),
        answer={"tokens": steps * BATCH_SAMPLES * SEQUENCE_LENGTH, "steps": steps},
    )
