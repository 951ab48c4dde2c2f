"""A sequence classifier as judge: any Hugging Face directory whose labels are refused, complied and evaded.

It reads the prompt and the answer as a pair of texts, cut to its own length from the answer's end.
Not covered: pickled weights (refused, safetensors only), code from the directory, classifiers with other labels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from components.core.errors import ConfigError, one_line
from components.evaluation.safety.prompts import LABELS, Exchange, Label
from components.tokens.foreign.weights import why_adapter

BATCH_SEQUENCES = 32
MAX_TOKENS = 512


class ClassifierJudge:
    """The most probable label of each exchange."""

    def __init__(self, directory: Path) -> None:
        """Load it. Raises ConfigError for a directory that is no such classifier."""
        if adapter := why_adapter(directory):
            raise ConfigError(adapter)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
            self._model = AutoModelForSequenceClassification.from_pretrained(
                directory, local_files_only=True, use_safetensors=True, dtype=torch.float32
            ).eval()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{directory}: cannot be read as a sequence classifier: {one_line(error)}") from error
        names = [str(self._model.config.id2label[index]).lower() for index in range(self._model.config.num_labels)]
        if unknown := sorted(set(names) - set(LABELS)):
            raise ConfigError(f"{directory}: labels {', '.join(unknown)}; needed some of {', '.join(LABELS)}")
        self._labels = [cast(Label, name) for name in names]
        limit = getattr(self._model.config, "max_position_embeddings", MAX_TOKENS)
        self._max_tokens = min(MAX_TOKENS, limit)
        self.name = f"classifier:{directory.name}"

    @torch.inference_mode()
    def judge(self, cases: Sequence[Exchange]) -> list[Label]:
        """See Judge.judge."""
        labels: list[Label] = []
        for start in range(0, len(cases), BATCH_SEQUENCES):
            batch = cases[start : start + BATCH_SEQUENCES]
            inputs = self._tokenizer(
                [each.prompt.text for each in batch],
                [each.answer for each in batch],
                truncation="only_second",
                max_length=self._max_tokens,
                padding=True,
                return_tensors="pt",
            )
            labels += [self._labels[index] for index in self._model(**inputs).logits.argmax(-1).tolist()]
        return labels
