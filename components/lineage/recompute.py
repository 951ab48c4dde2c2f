"""The very batch of a step again, and the loss of each of its documents with the weights of the finished model.

Reads   data/tokens, models/tokenizer, reports/plan, models/base
The batch follows from tokens, order, objectives, seed and what the run recorded as decided and skipped; its loss is
computed in float32 and in one process. Imports torch.
Not covered: the weights of that step, which are gone: what was lost then is known where spikes.jsonl says so. Documents
that share a window of an encoder-decoder: the first one has it all.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from components.core import artifact
from components.core.errors import DataError
from components.training.config import PretrainConfig, read_plan
from components.training.engine.batches.batch import Batch, number_of_batch
from components.training.engine.model.forward import Tensors, features, output_weight
from components.training.engine.model.loss import token_nats
from components.training.engine.model.saved import CLASSES
from components.training.engine.schedule import fixed
from components.training.engine.spikes import by_document
from components.training.engine.trainer import World
from components.training.run.samples import Samples
from components.training.run.worker_input import Work

ROWS = 8  # samples of one forward pass


def samples_of(tokens: Path, tokenizer: Path, plan: Path, base: Path) -> tuple[Samples, int]:
    """The samples of the run that made `base`, and its number of steps."""
    manifest = artifact.read(base)
    decided = manifest.statistics["decided"]
    planned = read_plan(plan)
    work = Work(
        config=PretrainConfig.model_validate_json(json.dumps(manifest.config)),
        plan=planned.model_copy(update={"skipped": tuple(decided["skipped"])}),
        tokens=tokens,
        tokenizer=tokenizer,
        run=base,
        training_ends_at=None,
        threads=1,
    )
    schedule = fixed(0, 0.0, [(start, end) for start, end in decided["decisions"]])
    return Samples(work, 0, 1, schedule), int(decided["steps"])


def documents_of_step(step: int, *, tokens: Path, tokenizer: Path, plan: Path, base: Path) -> dict[str, Any]:
    """batch, loss, samples, and documents with id, tokens and nats_per_token, those first that add most to the loss.

    Raises DataError for a step that the run did not take.
    """
    samples, num_steps = samples_of(tokens, tokenizer, plan, base)
    if not 0 <= step < num_steps:
        raise DataError(f"step {step}: {base} was trained for {num_steps} steps, needed 0 to {num_steps - 1}")
    batch = samples(step)
    kind = samples.work.plan.shape.kind
    isolated = samples.work.config.objectives.isolate_documents or kind != "decoder"
    disable_progress_bar()
    model = CLASSES[kind].from_pretrained(base, dtype=torch.float32, local_files_only=True).eval()
    nats = _nats(model, batch, isolated)
    totals = by_document(samples.documents(step, batch.labels.shape), batch.labels, nats, World())
    names = samples.ids(totals[:, 0].astype(np.int64).tolist())
    return {
        "batch": number_of_batch(step, samples.skipped),
        "loss": float(nats.sum(dtype=np.float64) / max(1, batch.num_labels)),
        "samples": samples.described(step),
        "documents": [
            {"id": name, "tokens": int(count), "nats_per_token": total / count}
            for name, (_, count, total) in zip(names, totals.tolist(), strict=True)
        ],
    }


@torch.no_grad()
def _nats(model: PreTrainedModel, batch: Batch, isolated: bool) -> NDArray[np.float32]:
    """-ln p of each label, shape (B, T)."""
    nats = []
    for start in range(0, len(batch), ROWS):
        part = batch.rows(start, start + ROWS)
        arrays = {
            "inputs": part.inputs,
            "labels": part.labels,
            "positions": part.positions if isolated else None,
            "encoder_inputs": part.encoder_inputs,
            "encoder_positions": part.encoder_positions,
        }
        tensors = Tensors(
            **{name: torch.from_numpy(np.array(each)) for name, each in arrays.items() if each is not None}
        )
        nats.append(token_nats(features(model, tensors).hidden, output_weight(model), tensors.labels))
    return torch.cat(nats).numpy()
