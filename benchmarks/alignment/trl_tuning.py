"""TRL's SFTTrainer for so many seconds."""

import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import SFTConfig, SFTTrainer

from benchmarks.alignment.tuning import LEARNING_RATE, MODEL, VOCABULARY_SIZE, outcome, read
from benchmarks.harness import Outcome


class Watch(TrainerCallback):  # type: ignore[misc]  # transformers types it as Any
    """Ends training when its seconds are up; keeps the losses."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.started = time.monotonic()
        self.losses: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """The clock starts."""
        self.started = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Time may be up."""
        control.should_training_stop = time.monotonic() - self.started >= self.seconds

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        """Losses come by the log."""
        if "loss" in logs:
            self.losses.append(logs["loss"])


def tokenizer() -> PreTrainedTokenizerFast:
    """One that only names tokens: the conversations are ids already."""
    words = Tokenizer(models.WordLevel({f"t{number}": number for number in range(VOCABULARY_SIZE)}, unk_token="t1"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="t0", eos_token="t2", unk_token="t1")


def run_with(folder: Path, **settings: Any) -> Outcome:
    """Useful tokens a second of SFTTrainer with some settings beside its defaults."""
    logging.disable(logging.WARNING)
    conversations, seconds = read(folder)
    dataset = Dataset.from_list(
        [
            {
                "input_ids": each["ids"],
                "completion_mask": [int(place >= each["prompt"]) for place in range(len(each["ids"]))],
            }
            for each in conversations
        ]
    )
    watch, useful = Watch(seconds), 0
    with tempfile.TemporaryDirectory() as out:
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder / MODEL, dtype=torch.float32),
            args=SFTConfig(
                output_dir=out,
                num_train_epochs=1000,
                learning_rate=LEARNING_RATE,
                bf16=False,
                use_cpu=True,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
                logging_steps=5,
                dataloader_pin_memory=False,
                **settings,
            ),
            train_dataset=dataset,
            processing_class=tokenizer(),
            callbacks=[watch],
        )
        inner = trainer.data_collator

        def collate(examples: list[dict[str, Any]]) -> Any:
            nonlocal useful
            useful += sum(len(each["input_ids"]) for each in examples)
            return inner(examples)

        trainer.data_collator = collate
        trainer.train()
    return outcome(useful, time.monotonic() - watch.started, watch.losses)
