"""Make an encoder a sequence classifier: its texts encoded, trained with our own engine, measured and saved.

Covers: one label of a text or several, pairs of a text and an answer, all weights, the last blocks, or the head alone;
steps of fixed mode or the clock; going on after a kill. The head reads the mean of a text's features.
Not covered: adapters, several texts in a row (the shorter ones of a batch are filled up), a base that is no encoder.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import logging as transformers_logging

from components.alignment.classification.figures import figures_of
from components.alignment.classification.labelled import Labelled, LabelledTexts, read_texts
from components.alignment.config import ClassifyConfig, SftConfig
from components.alignment.examples.lengths import fitting
from components.alignment.objectives import tuning
from components.alignment.objectives.engine_tuning import Tuned, tune
from components.core.errors import ConfigError, DataError
from components.core.events import Events
from components.core.text import read_json_object
from components.deadline.budget import Budget
from components.tokens.encoding.codec import TOKENIZER, TextCodec
from components.tokens.encoding.special import CONFIG
from components.tokens.shards.order import samples_at
from components.training.engine.batches.batch import Batch
from components.training.engine.model.classification import ClassificationLoss, probabilities

SAVE_SECONDS = 3.0
TUNES = ("full", "last_layers", "head")
TEMPLATE = {"single": "{0} $A {0}", "pair": "{0} $A {0} $B {0}"}  # what AutoTokenizer makes of the same texts


def encode(text: Labelled, codec: TextCodec) -> list[int]:
    """Its ids between tokens that end texts, as TEMPLATE says; special tokens inside a text stay text."""
    end = codec.special.end_of_text
    answer = [] if text.answer is None else [*codec.encode(text.answer), end]
    return [end, *codec.encode(text.text), end, *answer]


def batch_of(rows: Sequence[Sequence[int]], targets: NDArray[np.int64], pad: int) -> Batch:
    """Texts filled up to the longest one, shape (B, T), and what is to be said of each, shape (B, labels)."""
    length = max(map(len, rows))
    inputs, positions = np.full((len(rows), length), pad, np.int64), np.zeros((len(rows), length), np.int64)
    for number, row in enumerate(rows):
        inputs[number, : len(row)] = row
        positions[number] = [*range(len(row)), *range(length - len(row))]
    return Batch(inputs=inputs, labels=targets, positions=positions, sources=np.zeros(len(rows), np.int64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Texts as ids, and their targets, shape (texts, 1) or (texts, labels)."""

    rows: list[list[int]]
    targets: NDArray[np.int64]
    pad: int

    def batch(self, numbers: Sequence[int]) -> Batch:
        """The texts of some numbers."""
        return batch_of([self.rows[each] for each in numbers], self.targets[list(numbers)], self.pad)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """What each step reads: every text once in an epoch, in an order of its own."""

    split: Split
    batch_rows: int
    seed: int

    def __call__(self, step: int) -> Batch:
        """The batch of a step: a pure function of it."""
        places = np.arange(step * self.batch_rows, (step + 1) * self.batch_rows)
        return self.split.batch(samples_at(places, len(self.split.rows), self.seed)[1].tolist())


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is told apart, from which texts, and on which it is measured; and how many were too long for a row."""

    read: LabelledTexts
    learned: Split
    heldout: Split
    too_long: int


def task_of(config: SftConfig, classify: ClassifyConfig, codec: TextCodec) -> Task:
    """Texts that fit into a row, in two parts by a hash of the text: its answers lie in one part. Raises DataError."""
    read = read_texts(classify.files, classify.suites)
    rows = [encode(each, codec) for each in read.texts]
    where = ", ".join(classify.files)
    lengths = [len(row) for row in rows]
    kept = fitting(lengths, config.row_tokens, config.max_too_long, where=where, bound="sft.row_tokens")
    targets = read.targets(read.texts)
    held = [_point(read.texts[each].text) < classify.heldout_fraction for each in kept]
    learned, heldout = (
        [each for each, is_held in zip(kept, held, strict=True) if is_held is part] for part in (False, True)
    )
    if not learned or not heldout:
        raise DataError(
            f"{where}: {len(kept)} texts give {len(learned)} to learn from and {len(heldout)} to measure on, needed "
            "one of each at least; add texts or change sft.classify.heldout_fraction"
        )
    splits = [
        Split(rows=[rows[each] for each in part], targets=targets[part], pad=codec.special.filler)
        for part in (learned, heldout)
    ]
    return Task(read=read, learned=splits[0], heldout=splits[1], too_long=len(rows) - len(kept))


def open_classifier(config: SftConfig, base: Path, read: LabelledTexts) -> PreTrainedModel:
    """The base with a head for the labels, and those weights that are tuned requiring gradients. Raises ConfigError."""
    if config.tune not in TUNES:
        raise ConfigError(f"sft.tune is {config.tune}: a classifier takes {', '.join(TUNES)}; its head is always new")
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # it warns that the head is new
    transformers_logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
            base,
            dtype=torch.float32,
            local_files_only=True,
            id2label=dict(enumerate(read.names)),
            label2id={name: number for number, name in enumerate(read.names)},
            problem_type=f"{'multi' if read.several else 'single'}_label_classification",
            classifier_pooling="mean",
        )
    transformers_logging.set_verbosity(verbosity)
    moved = tuple(_moved(config, len(model.base_model.layers)))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(config.tune == "full" or name.startswith(moved))
    return model


def _moved(config: SftConfig, blocks: int) -> list[str]:
    """How the names of what is tuned begin, where that is not everything."""
    if config.tune == "last_layers" and config.layers > blocks:
        raise ConfigError(f"sft.layers is {config.layers}, the model has {blocks} blocks; needed at most that")
    last = [f"model.layers.{blocks - 1 - each}." for each in range(config.layers)]
    return ["head.", "classifier.", *([*last, "model.final_norm."] if config.tune == "last_layers" else [])]


def said(model: PreTrainedModel, split: Split, batch_rows: int, *, several: bool) -> NDArray[np.float64]:
    """Probabilities of the labels, shape (texts, labels), with the weights as they are."""
    parts = []
    for start in range(0, len(split.rows), batch_rows):
        batch = split.batch(range(start, min(start + batch_rows, len(split.rows))))
        inputs, positions = (torch.from_numpy(each).to(model.device) for each in (batch.inputs, batch.positions))
        parts.append(probabilities(model, inputs, positions, several=several).cpu().numpy())
    return np.concatenate(parts).astype(np.float64)


def train_classifier(
    config: SftConfig, base: Path, task: Task, budget: Budget, checkpoints: Path, events: Events
) -> tuple[PreTrainedModel, Tuned, dict[str, Any]]:
    """The classifier, its run, and what is said of both: figures on held-out texts, each with its interval."""
    model = open_classifier(config, base, task.read)
    measuring = time.monotonic()
    said(model, task.heldout, config.batch_rows, several=task.read.several)
    kept_back = budget.keep(1.3 * (time.monotonic() - measuring) + SAVE_SECONDS)
    steps = tuning.plan_steps(config, len(task.learned.rows) / config.batch_rows, kept_back)
    draws = Draws(split=task.learned, batch_rows=config.batch_rows, seed=config.seed)
    tuned = tune(model, draws, config, steps, checkpoints, events, loss=ClassificationLoss(model))
    probability = said(model, task.heldout, config.batch_rows, several=task.read.several)
    figures = figures_of(probability, task.heldout.targets, seed=config.seed)
    events.metrics({f"heldout_{name}": each.value for name, each in figures.items()}, tuned.steps)
    return (
        model,
        tuned,
        {
            "steps": tuned.steps,
            "tokens": tuned.tokens,
            "decided": steps.decided(),
            "labels": list(task.read.names),
            "several_labels": task.read.several,
            "learned": len(task.learned.rows),
            "heldout": len(task.heldout.rows),
            "dropped": {"too_long": task.too_long, "asked_by_suites": task.read.measured},
            "files": task.read.digests,
            **{name: asdict(each) for name, each in figures.items()},
        },
    )


def save_classifier(model: PreTrainedModel, base: Path, out: Path) -> None:
    """A directory of AutoModelForSequenceClassification, whose tokenizer writes texts and pairs as `encode` does."""
    codec = TextCodec(base)
    model.config.pad_token_id = codec.special.filler
    model.save_pretrained(out)
    (out / tuning.WEIGHTS).chmod(0o644)  # safetensors makes it private, unlike every other file of an artifact
    tuning.copy_tokenizer(base, out)
    tokenizer = Tokenizer.from_file(str(base / TOKENIZER))
    end, pad = (tokenizer.id_to_token(each) for each in (codec.special.end_of_text, codec.special.filler))
    template = {name: form.format(end) for name, form in TEMPLATE.items()}
    tokenizer.post_processor = TemplateProcessing(**template, special_tokens=[(end, codec.special.end_of_text)])
    tokenizer.save(str(out / TOKENIZER))
    path = out / CONFIG
    known = read_json_object(path) if path.exists() else {}
    changes = {
        "model_input_names": ["input_ids", "attention_mask"],
        "split_special_tokens": True,  # what looks like one in a text stays text
        "pad_token": pad,
    }
    path.write_text(json.dumps(known | changes, indent=1, ensure_ascii=False) + "\n")


def _point(text: str) -> float:
    """In [0, 1), by the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[8:16]) / 2**64
