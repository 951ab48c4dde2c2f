"""Which weights fine-tuning moves: all, some, or adapters beside them.

    full          all
    last_layers   the last `sft.layers` blocks, the last norm, the output embedding
    head          the output embedding
    head_reset    the same, drawn anew before
    lora, dora    low-rank adapters of every matrix of a block (Hu 2021, arXiv:2106.09685; Liu 2024, arXiv:2402.09353)
    qlora         adapters of weights in 4 bits (Dettmers 2023, arXiv:2305.14314); needs bitsandbytes and a GPU

Adapters are PEFT's, written into the model itself, so that one engine trains every kind.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from components.alignment.config import SftConfig
from components.alignment.objectives.tuning import load_model
from components.core.errors import ConfigError

ADAPTERS = ("lora", "dora", "qlora")
BITS = "bitsandbytes"
DEVIATION = 0.02  # of a new head, as transformers draws them


def open_model(config: SftConfig, base: Path) -> PreTrainedModel:
    """The base with those weights that are tuned requiring gradients. Raises ConfigError for what cannot be done."""
    model = _quantised(base) if config.tune == "qlora" else load_model(base)
    if config.tune not in ADAPTERS:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(config.tune == "full" or name in _some(model, config))
        if config.tune == "head_reset":
            generator = torch.Generator().manual_seed(config.seed)
            weight = model.get_output_embeddings().weight.data
            weight.copy_(torch.randn(weight.shape, generator=generator) * DEVIATION)
    return model


def with_adapters(model: PreTrainedModel, config: SftConfig) -> PeftModel:
    """The model with adapters of every matrix of its blocks; the model itself is changed in place."""
    torch.manual_seed(config.seed)
    settings = LoraConfig(
        r=config.rank,
        lora_alpha=config.adapter_alpha,
        target_modules=[name for name, each in _blocks(model).named_modules() if isinstance(each, nn.Linear)],
        use_dora=config.tune == "dora",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, settings)


def save_adapters(wrapped: PeftModel, out: Path) -> None:
    """The adapters alone, as PEFT reads them. Where the base lay, and PEFT's empty card, are no part of an artifact."""
    for each in wrapped.peft_config.values():
        each.base_model_name_or_path = ""
    wrapped.save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)


def _some(model: PreTrainedModel, config: SftConfig) -> set[str]:
    """Names of the parameters of the head, or of the last blocks and the head. Raises ConfigError."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    head = model.get_output_embeddings().weight
    tied = head is model.get_input_embeddings().weight
    if config.tune != "last_layers":
        if tied:
            raise ConfigError(
                f"sft.tune is {config.tune}: this model's output embedding is its input embedding, too; "
                "needed one of its own, or sft.tune: last_layers"
            )
        return {names[id(head)]}
    blocks = _blocks(model)
    if config.layers > len(blocks):
        raise ConfigError(f"sft.layers is {config.layers}, the model has {len(blocks)} blocks; needed at most that")
    chosen = [each for block in blocks[-config.layers :] for each in block.parameters()]
    base: Any = model.base_model
    chosen += getattr(base, "norm", nn.Module()).parameters()
    return {names[id(each)] for each in (chosen if tied else [*chosen, head])}


def _blocks(model: PreTrainedModel) -> nn.ModuleList:
    base: Any = model.base_model
    blocks: nn.ModuleList = base.layers
    return blocks


def _quantised(base: Path) -> PreTrainedModel:
    """The base in 4 bits (nf4). Raises ConfigError where nothing here computes with them."""
    if find_spec(BITS) is None or not torch.cuda.is_available():
        lacking = BITS if find_spec(BITS) is None else "a GPU"
        raise ConfigError(f"sft.tune is qlora: needs {lacking}, which is not here; lora trains the same adapters")
    return load_model(
        base,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        ),
    )
