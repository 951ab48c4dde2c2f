"""How good a model is on documents that it does not learn from, by its kind.

decoder                     bits per byte: every token after those before it (components.training.engine.validation)
encoder, encoder-decoder    mean nats of what pretrain.objectives asks, on held-out windows rearranged by the run's
                            seed: comparable between runs of one tokenizer and one section pretrain.objectives, and with
                            no decoder's bits per byte - most of the text is given, and only the rest is scored
"""

from collections.abc import Iterator

import numpy as np
import polars as pl
from transformers.modeling_utils import PreTrainedModel

from components.tokens.encoding.special import SpecialTokens
from components.tokens.shards.split import sample_of
from components.tokens.shards.token_store import TokenStore
from components.training.engine.batches.batch import Batch
from components.training.engine.model.loss import mean_nats
from components.training.engine.validation import bits_per_byte, nats
from components.training.run.objective_mixture import mixture_of
from components.training.run.worker_input import Work

BYTES_PER_TOKEN = 3  # roughly, of code: turns final_validation_bytes into windows


class Validation:
    """Held-out documents, drawn once by the seed, for decoders."""

    def __init__(self, work: Work, limit_bytes: int, device: str) -> None:
        store = TokenStore(work.tokens, "validation")
        num_bytes = pl.read_parquet(work.tokens / "validation.documents.parquet", columns=["bytes"])["bytes"].to_numpy()
        self.indices = sample_of(num_bytes, limit_bytes, work.config.seed)
        self.documents = [store.document(int(index)) for index in self.indices]
        self.num_bytes = int(num_bytes[self.indices].sum())
        self.context = work.plan.sequence_length
        self.end_of_text = SpecialTokens.read(work.tokenizer).end_of_text
        self.device = device

    def __call__(self, model: PreTrainedModel) -> float:
        """Bits per byte."""
        total = nats(model, self.documents, self.context, self.end_of_text, self.device)
        return bits_per_byte(total, self.num_bytes)


def nats_per_label(model: PreTrainedModel, work: Work) -> float | None:
    """Mean nats of what the objectives ask of held-out windows; None when the held-out tokens fill no window."""
    plan, config = work.plan, work.config
    store = TokenStore(work.tokens, "validation")
    length = plan.sequence_length
    wanted = max(1, config.final_validation_bytes // (BYTES_PER_TOKEN * length))
    numbers = list(range(min(wanted, (store.num_tokens - 1) // length)))
    if not numbers:
        return None
    mixture = mixture_of(config.objectives, plan.shape.kind, work.tokenizer, config.seed)

    def batches() -> Iterator[Batch]:
        for first in range(0, len(numbers), plan.micro_batch_samples):
            part = numbers[first : first + plan.micro_batch_samples]
            windows = np.stack([store.read(each * length, (each + 1) * length + 1) for each in part]).astype(np.int64)
            yield mixture.batch(windows, [0] * len(part), part, np.zeros(len(part), dtype=np.int64))

    return mean_nats(model, batches())
