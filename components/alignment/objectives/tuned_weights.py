"""Which weights fine-tuning moves: all, some, or adapters beside them.

    full          all
    last_layers   the last `sft.layers` blocks (of an encoder-decoder's decoder), the last norm, the output embedding
    head          the output embedding
    head_reset    the same, drawn anew before
    lora, dora    low-rank adapters of every linear layer of a block (Hu 2021, arXiv:2106.09685; Liu 2024,
                  arXiv:2402.09353); experts, which transformers keeps in one tensor, have none
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
from components.alignment.objectives.tuning import architecture_of, load_model
from components.core.errors import ConfigError
from components.training.engine.model.shape import Kind, kind_of

ADAPTERS = ("lora", "dora", "qlora")
BITS = "bitsandbytes"
DEVIATION = 0.02  # of a new head, as transformers draws them


def open_model(config: SftConfig, base: Path) -> PreTrainedModel:
    """The base with those weights that are tuned requiring gradients. Raises ConfigError for what cannot be done."""
    kind = kind_of(architecture_of(base))
    model = _quantised(base, kind) if config.tune == "qlora" else load_model(base, kind)
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
        target_modules=_matrices(model),
        use_dora=config.tune == "dora",
        task_type="SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM",
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
    blocks, norm = _stack(model)
    if config.layers > len(blocks):
        raise ConfigError(f"sft.layers is {config.layers}, the model has {len(blocks)} blocks; needed at most that")
    chosen = [each for part in (*blocks[-config.layers :], norm) for each in part.parameters()]
    return {names[id(each)] for each in (chosen if tied else [*chosen, head])}


def _stack(model: PreTrainedModel) -> tuple[nn.ModuleList, nn.Module]:
    """The blocks that end in the output, and the norm behind them."""
    base: Any = model.base_model
    if model.config.is_encoder_decoder:
        return base.decoder.block, base.decoder.final_layer_norm
    norm = getattr(base, "norm", None) or getattr(base, "final_layernorm", None)  # Mamba's kin
    return base.layers, norm or nn.Module()


def _matrices(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers of all blocks. A recurrent mixer's last one is left out, as PEFT does: with kernels it
    is computed from its weight alone, past an adapter."""
    stacks = [side.block for side in (model.encoder, model.decoder)] if model.config.is_encoder_decoder else []
    names = [
        name
        for stack in stacks or [_stack(model)[0]]
        for name, each in stack.named_modules()
        if isinstance(each, nn.Linear)
    ]
    return [each for each in dict.fromkeys(names) if not each.endswith("mamba.out_proj")]


def _quantised(base: Path, kind: Kind) -> PreTrainedModel:
    """The base in 4 bits (nf4). Raises ConfigError where nothing here computes with them."""
    if find_spec(BITS) is None or not torch.cuda.is_available():
        lacking = BITS if find_spec(BITS) is None else "a GPU"
        raise ConfigError(f"sft.tune is qlora: needs {lacking}, which is not here; lora trains the same adapters")
    return load_model(
        base,
        kind,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        ),
    )
