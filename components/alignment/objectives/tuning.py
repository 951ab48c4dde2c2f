"""What sft and align share: loading, the step limit or the clock, likelihoods of answers, saving."""

import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from components.alignment.config import AlignConfig, SftConfig
from components.alignment.examples.chat import stop_ids
from components.core import artifact
from components.core.errors import ArtifactError, DataError
from components.core.text import read_json_object
from components.deadline.budget import Budget
from components.inference.ctranslate2_model import read_model_config
from components.tokens.encoding.special import SpecialTokens
from components.training.engine.devices.cores import has_machine, pinned
from components.training.engine.model.saved import CLASSES
from components.training.engine.model.shape import Kind, kind_of
from components.training.engine.pace import Pace
from components.training.engine.schedule import Schedule

WEIGHTS = "model.safetensors"
Row = dict[str, list[int]]


def architecture_of(directory: Path) -> str:
    """The model_type of a model's directory. Raises ArtifactError when its config.json cannot be read."""
    try:
        return str(read_json_object(directory / "config.json").get("model_type"))
    except ValueError as error:
        raise ArtifactError(f"{directory / 'config.json'}: cannot be read: {error}; run pretrain again") from error


def require_answers(directory: Path) -> str:
    """The model_type of a base that can learn to answer. Raises DataError for an encoder."""
    architecture = architecture_of(directory)
    if kind_of(architecture) == "encoder":
        raise DataError(
            f"{directory}: {architecture} is an encoder, which answers nothing; name labelled texts in sft.classify to "
            "make it a classifier, or choose another plan.architecture"
        )
    return architecture


def require_encoder(directory: Path) -> None:
    """Raise DataError for a base that cannot become a classifier here."""
    architecture = architecture_of(directory)
    if kind_of(architecture) != "encoder":
        raise DataError(
            f"{directory}: sft.classify needs an encoder, found {architecture}, which answers; set sft.classify to "
            "null, or plan.architecture to modernbert"
        )


def load_model(directory: Path, kind: Kind = "decoder", **options: Any) -> PreTrainedModel:
    """A local model with float32 weights (transformers would follow the file's own type). Raises ArtifactError for one
    that should be a decoder and is none.

    options   of from_pretrained
    """
    transformers_logging.disable_progress_bar()
    if kind == "decoder":
        read_model_config(directory)  # says in one line that another kind answers nothing
    model: PreTrainedModel = CLASSES[kind].from_pretrained(
        directory, dtype=torch.float32, local_files_only=True, **options
    )
    return model


@dataclass(slots=True, kw_only=True)
class Steps:
    """The steps of one run: at most `num_steps`, the learning rate of each, and the clock that ends them before.

    The schedule's decisions begin with these steps; those that the clock takes follow, and replay without it.
    """

    num_steps: int
    schedule: Schedule
    budget: Budget
    started: float = 0.0
    pace: Pace | None = None

    @property
    def last(self) -> int:
        """Where training ends, as far as it is decided."""
        return self.schedule.total_steps or 0

    def begin(self) -> bool:
        """Training starts now. False when the clock leaves no time for it."""
        self.started = time.monotonic()
        left = self.budget.seconds_left
        if left is not None:
            self.pace = Pace(training_seconds=left, decay_share=1.0, max_steps=self.num_steps)
            if left <= 0:
                self.schedule.decisions[:] = [(0, 0)]
        return self.last > 0

    def decide(self, step: int) -> None:
        """Take the decision that is due after `step` steps, if the clock takes any."""
        if self.pace:
            self.pace.decide(self.schedule, step, time.monotonic() - self.started)

    def decided(self) -> dict[str, Any]:
        """What fixed mode replays, key for key of the stage's parameters."""
        decisions = [each for each in self.schedule.decisions if each != (0, self.num_steps)]
        return {"max_steps": self.num_steps, "decisions": decisions}


def plan_steps(config: SftConfig | AlignConfig, steps_of_epoch: float, budget: Budget) -> Steps:
    """Steps by `max_steps` in fixed mode and by the clock in deadline mode; by `max_epochs` in both."""
    by_epochs = max(1, math.ceil(config.max_epochs * steps_of_epoch))
    by_clock = budget.seconds is not None
    num_steps = by_epochs if by_clock else min(config.max_steps, by_epochs)
    replayed = [] if by_clock else list(config.decisions)
    # A first decision at step 0 says that there was no time for any.
    decisions = replayed if replayed and replayed[0][0] == 0 else [(0, num_steps), *replayed]
    schedule = Schedule(warmup_share=config.warmup_fraction, final_share=0.0, decisions=decisions)
    return Steps(num_steps=num_steps, schedule=schedule, budget=budget)


@contextmanager
def own_cores() -> Iterator[None]:
    """Within, this process trains alone on its machine: each compute thread on a core of its own, but for GPUs."""
    with pinned(torch.get_num_threads() if has_machine(1, "cuda" if torch.cuda.is_available() else "cpu") else 1):
        yield


def log_likelihoods(model: PreTrainedModel, rows: Sequence[Row], batch_size: int) -> list[float]:
    """Natural-log probability of each row's labelled tokens, summed over them, in the order of the rows.

    rows: input_ids and labels (-100 where nothing is to be predicted), each of shape (T,).
    """
    was_training = model.training
    model.eval()
    log_probs = [0.0] * len(rows)
    ordered = sorted(range(len(rows)), key=lambda number: len(rows[number]["input_ids"]))
    with torch.inference_mode():
        for start in range(0, len(ordered), batch_size):
            numbers = ordered[start : start + batch_size]
            ids = _padded([rows[number]["input_ids"] for number in numbers], 0).to(model.device)
            labels = _padded([rows[number]["labels"] for number in numbers], -100).to(model.device)
            logits = model(input_ids=ids).logits[:, :-1].float()
            losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")
            for number, loss in zip(numbers, losses.sum(dim=1).tolist(), strict=True):
                log_probs[number] = -loss
    model.train(was_training)
    return log_probs


def _padded(sequences: Sequence[list[int]], value: int) -> torch.Tensor:
    """Sequences as one tensor of shape (B, T), filled up on the right, where no decoder looks."""
    width = max(map(len, sequences))
    return torch.tensor([sequence + [value] * (width - len(sequence)) for sequence in sequences])


def mean_loss(model: PreTrainedModel, rows: Sequence[Row], batch_size: int) -> float:
    """Mean negative log-likelihood, in nats, of the labelled tokens of all rows."""
    count = sum(label != -100 for row in rows for label in row["labels"])
    return -sum(log_likelihoods(model, rows, batch_size)) / count


def save_model(model: PreTrainedModel, source: Path, out: Path) -> None:
    """A Hugging Face directory: weights, config, generation config that stops at <|end|>, the source's tokenizer."""
    special = SpecialTokens.read(source)
    model.config.pad_token_id = special.filler
    model.generation_config = GenerationConfig(
        bos_token_id=special.end_of_text, eos_token_id=list(stop_ids(special)), pad_token_id=special.filler
    )
    if model.config.is_encoder_decoder:  # as it was trained to begin
        model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = special.filler
    model.save_pretrained(out)
    (out / WEIGHTS).chmod(0o644)  # safetensors makes it private, unlike every other file of an artifact
    copy_tokenizer(source, out)


def pass_on(source: Path, out: Path) -> None:
    """Copy a model directory as it is, but for what it says of its own training."""
    for name in ("config.json", WEIGHTS, "generation_config.json", "chat_template.jinja"):
        if (source / name).exists():
            shutil.copyfile(source / name, out / name)
    copy_tokenizer(source, out)


def copy_tokenizer(source: Path, out: Path) -> None:
    """Copy the tokenizer's files of a model directory, byte for byte."""
    for path in artifact.files(source, "*"):
        if path.name in ("special_tokens_map.json", "added_tokens.json") or path.name.startswith("tokenizer"):
            shutil.copyfile(path, out / path.name)
