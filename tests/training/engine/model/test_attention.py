"""What a compiled model hands to its attention."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers.modeling_utils import PreTrainedModel

from components.training.engine.model.architectures import build
from components.training.engine.model.shape import shape_of
from components.training.engine.trainer import Trainer, World
from tests.training.runs import recipe

pytestmark = pytest.mark.numeric


def compiled(model: PreTrainedModel, tokens: torch.Tensor) -> tuple[torch.Tensor, list[tuple[bool, bool]]]:
    """Features, and of each attention whether it has a mask and whether it is causal by itself."""
    found: list[tuple[bool, bool]] = []

    def backend(graph: Any, _: object) -> Any:
        for node in graph.graph.nodes:
            if "scaled_dot_product_attention" in str(node.target):
                found.append((node.kwargs["attn_mask"] is not None, bool(node.kwargs["is_causal"])))
        return graph

    torch.compiler.reset()
    with torch.no_grad():
        run: Any = torch.compile(model.base_model, backend=backend)
        features = run(input_ids=tokens, use_cache=False)
    return features.last_hidden_state, found


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_rows_of_one_piece_need_no_mask(architecture: Any) -> None:
    shape = shape_of(
        architecture=architecture,
        vocabulary_size=64,
        context=2048,
        layers=2,
        width=64,
        head_width=32,
        queries_per_key_value=2,
        rope_theta=10_000.0,
        tied=False,
    )
    model, tokens = build(shape, 0, 0), torch.arange(16)[None]
    for name, each in model.named_parameters():
        if name.endswith("o_proj.weight"):  # which begins at zero
            torch.nn.init.normal_(each, std=0.1)
    wanted, _ = compiled(model, tokens)
    Trainer(model, recipe(), World(), lambda _: None)
    assert model.config._attn_implementation == "sdpa", "documents are kept apart unless the recipe says otherwise"
    Trainer(model, replace(recipe(), isolate_documents=False), World(), lambda _: None)
    found, attentions = compiled(model, tokens)
    assert attentions == [(False, True)] * 2
    torch.testing.assert_close(found, wanted)
