"""The model that transformers makes of a checkpoint, without its numbers: what it is, before anything is planned.

Every property of a checkpoint is read here, from the one object that training will load, and from nowhere else: names
of files and keys of config.json say less than the model does (defaults, aliases, tied weights).
Imports torch and transformers (10 s), so only a stage that adopts a checkpoint imports this.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import logging

from components.core.errors import DataError, one_line
from components.tokens.foreign.weights import Tensor, linked

EMBEDDINGS = {
    "input": ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight"),
    "output": ("lm_head.weight", "embed_out.weight"),
}
POSITIONS = ("wpe.weight", "embed_positions.weight", "position_embeddings.weight")


def skeleton(directory: Path, held: dict[str, Tensor]) -> tuple[PreTrainedModel, bool]:
    """The model on no device, and whether its two embeddings are one.

    held    the tensors of its files by name
    Raises DataError when the files do not hold every weight of the model that config.json describes, or hold more.
    """
    verbosity = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # what it would report is judged below
    try:
        with linked(directory) as folder:
            model, report = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=torch.float32,
                device_map="meta",
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # a config.json of any content reaches any line of the library
        raise DataError(f"{directory}: transformers cannot load it as a decoder: {one_line(error, 300)}") from error
    finally:
        logging.set_verbosity(verbosity)
    if missing := sorted(report["missing_keys"]):
        raise DataError(
            f"{directory}: {len(missing)} weights of the model are not there, as {missing[0]}; config.json describes "
            "another model than the weights are of, or they were not saved whole"
        )
    if unexpected := sorted(report["unexpected_keys"]):
        raise DataError(
            f"{directory}: {len(unexpected)} weights are of no part of the model that config.json describes, as "
            f"{unexpected[0]}; needed the config.json of these weights"
        )
    tied = _is_tied(model, held)
    if tied:
        model.tie_weights()  # without numbers transformers could not compare the two, and left them apart
    return model, tied


def parameters_of(model: PreTrainedModel) -> tuple[int, int]:
    """All parameters, each counted once, and those of the matrices that a token is multiplied with."""
    config: Any = model.config.get_text_config(decoder=True)
    experts = int(getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None) or 1)
    share = int(getattr(config, "num_experts_per_tok", None) or 1) / experts if experts > 1 else 1.0
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    total = active = 0
    for name, parameter in model.named_parameters():
        total += parameter.numel()
        is_input_alone = parameter is model.get_input_embeddings().weight and not tied
        if parameter.ndim < 2 or name.endswith(POSITIONS) or is_input_alone:
            continue
        active += int(parameter.numel() * share) if ".experts." in name else parameter.numel()
    return total, active


def _is_tied(model: PreTrainedModel, held: dict[str, Tensor]) -> bool:
    """Whether the embeddings are one: as the model says, but for files that hold two different ones.

    transformers then keeps both, whatever config.json says, and so do we: that is what the checkpoint computes.
    """
    if not any(name.endswith(EMBEDDINGS["output"]) for pair in model.all_tied_weights_keys.items() for name in pair):
        return False
    both = [next((name for name in held if name.endswith(names)), None) for names in EMBEDDINGS.values()]
    if None in both:
        return True
    first, second = (_read(held[str(name)], str(name)) for name in both)
    return first.shape == second.shape and bool(torch.equal(first, second))


def _read(tensor: Tensor, name: str) -> torch.Tensor:
    with safe_open(tensor.file, framework="pt") as file:
        weight: torch.Tensor = file.get_tensor(name)
        return weight
