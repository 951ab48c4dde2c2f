"""Which rule and rate each parameter of a model learns with, whatever its architecture. Only torch and transformers.

embedding   the input embedding, and others of its width (learned positions): AdamW
output      the output embedding when it is not the input embedding: AdamW
matrix      what a token's features are multiplied with: Muon; a parameter of three dimensions holds one matrix for
            each expert, to be orthogonalised apart
norm        everything else - norms, biases, convolutions, Mamba's decay and time steps, relative positions, and
            routers, whose few rows are scores of experts and no map between features: AdamW
"""

from typing import Literal

from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel

Role = Literal["embedding", "output", "matrix", "norm"]
ROUTERS = ("gate.weight", "router.weight", "router.layer.weight")


def roles_of(model: PreTrainedModel) -> dict[str, Role]:
    """The role of every parameter by the name that named_parameters() gives it."""
    output = model.get_output_embeddings()
    roles: dict[str, Role] = {}
    for name, parameter in model.named_parameters():
        owner = model.get_submodule(name.rpartition(".")[0])
        if parameter is model.get_input_embeddings().weight:
            roles[name] = "embedding"
        elif output is not None and parameter is output.weight:
            roles[name] = "output"
        else:
            roles[name] = _role(name, parameter, owner, int(model.get_input_embeddings().weight.shape[1]))
    return roles


def _role(name: str, parameter: Tensor, owner: nn.Module, width: int) -> Role:
    if isinstance(owner, nn.Embedding):
        return "embedding" if parameter.shape[1] == width else "norm"
    convolution = isinstance(owner, nn.Conv1d)
    if parameter.ndim < 2 or convolution or name.endswith(ROUTERS):
        return "norm"
    return "matrix"
