"""The model of a checkpoint, ready to go on from: grown by the rows of new tokens, its context stretched where asked.

Only torch and transformers. Covers: every decoder of transformers whose logits are its features times its output
embedding; weights in safetensors alone (a pickle is never read), in float32 whatever type the file has.
Not covered: loading in shards (each worker holds the whole model once), code that a checkpoint brings.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import logging

from components.training.engine.model.architectures import attention_of
from components.training.engine.model.forward import features_match
from components.training.engine.model.shape import Shape
from components.training.engine.reason import reason_of

# At the mean itself all new tokens are one to the model: a run of an hour, some 40 updates of 1e-4, moves a row by
# 0.004, where SmolLM2's lie 0.1 apart in each feature, and a prefix could not be told from a suffix.
SPREAD = 0.5


class CheckpointError(ValueError):
    """A checkpoint that cannot be gone on from; one line."""


def load(
    directory: Path,
    shape: Shape,
    *,
    known_tokens: int,
    tokens: int,
    end_of_text: int,
    rope_scaling: str | None,
    opened: Path | None = None,
) -> PreTrainedModel:
    """The checkpoint's model in float32, with `shape.vocabulary_size` rows and a context of `shape.context`.

    opened          a folder that shows just the files that belong to the model; None: the directory itself
    known_tokens    ids that the checkpoint was trained with; rows of ids from there to `tokens` begin about their mean,
                    in the input and the output embedding: every new token is then no more probable than the average
                    one, and a random row would be far more (Hewitt 2021, nlp.stanford.edu/~johnhew/vocab-expansion)
    rope_scaling    yarn (Peng et al. 2023, arXiv:2309.00071) or linear (Chen et al. 2023, arXiv:2306.15595), by the
                    factor that the context grows; None: as it is
    Raises CheckpointError.
    """
    model = _read(directory, opened or directory, shape, rope_scaling)
    grow(model, shape.vocabulary_size, known_tokens, tokens)
    if (count := sum(each.numel() for each in model.parameters())) != shape.parameters:
        raise CheckpointError(
            f"{directory}: {shape.parameters:,} parameters were planned, the model has {count:,}; run "
            "`overnight cycle` again, so that the checkpoint is looked at anew"
        )
    model.config.use_cache = False
    model.config.eos_token_id = end_of_text
    return model


def _read(directory: Path, files: Path, shape: Shape, rope_scaling: str | None) -> PreTrainedModel:
    """A decoder of transformers with all of its weights, whose features give its logits."""
    logging.disable_progress_bar()
    try:
        config: Any = AutoConfig.from_pretrained(files, local_files_only=True, trust_remote_code=False)
        config.tie_word_embeddings = shape.tied  # by the weights: files may hold two embeddings where this says one
        if rope_scaling is not None:
            _stretch(config, shape.context, rope_scaling)
        model_and_info = AutoModelForCausalLM.from_pretrained(
            files,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            attn_implementation=attention_of(shape.context),
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise CheckpointError(
            f"{directory}: transformers cannot load it as a decoder: {reason_of(error, 300)}"
        ) from error
    model: PreTrainedModel = model_and_info[0]
    if missing := sorted(model_and_info[1]["missing_keys"]):
        raise CheckpointError(f"{directory}: {len(missing)} weights of the model are not there, as {missing[0]}")
    if not features_match(model):
        raise CheckpointError(
            f"{directory}: the logits of {config.model_type} are not its features times its output embedding (a scale, "
            "cap or bias follows); needed a model without"
        )
    return model


def _stretch(config: Any, context: int, rope_scaling: str) -> None:
    """Scale rotary positions so that `context` tokens fit where the checkpoint saw fewer."""
    before = int(config.max_position_embeddings)
    config.rope_parameters = {
        **config.rope_parameters,
        "rope_type": rope_scaling,
        "factor": context / before,
        **({"original_max_position_embeddings": before} if rope_scaling == "yarn" else {}),
    }
    config.max_position_embeddings = context


@torch.no_grad()
def grow(model: PreTrainedModel, rows: int, known_tokens: int, tokens: int) -> None:
    """Embeddings of `rows` rows; those of ids [known_tokens, tokens) begin about the mean of the rows before them, each
    at a place of its own, SPREAD of the rows' own spread away: the same ones in every run."""
    if rows != model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(rows, mean_resizing=False)
    for embedding in (model.get_input_embeddings(), model.get_output_embeddings()):
        weight = embedding.weight
        drawn = torch.randn(tokens - known_tokens, weight.shape[1], generator=torch.Generator().manual_seed(0))
        known = weight[:known_tokens]
        weight[known_tokens:tokens] = known.mean(dim=0) + SPREAD * known.std(dim=0) * drawn.to(weight)
