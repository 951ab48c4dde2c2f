"""Muon for hidden matrices and AdamW for the rest, on float32 masters of weights that may compute in bfloat16.

Muon: Jordan et al. 2024 (kellerjordan.github.io/posts/muon). Matrices of one shape are orthogonalised together, in one
batched multiplication; torch.optim.Muon takes them one by one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel

from components.training.roles import roles_of

# Quintic Newton-Schulz coefficients of the reference implementation, chosen for slope at zero, not for convergence.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
TINY = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Peak learning rates by role, and the rest of the update rule."""

    matrix: float
    embedding: float
    output: float
    norm: float
    momentum: float
    momentum_warmup_steps: int
    weight_decay: float
    betas: tuple[float, float]
    epsilon: float
    clip_norm: float


class Stack:
    """Matrices of one shape: masters and momentum, shape (matrices, rows, columns).

    A parameter is one matrix or, of three dimensions, one for each expert.
    """

    def __init__(self, names: list[str], parameters: list[nn.Parameter]) -> None:
        self.names = names
        self.parameters = parameters
        self.masters = _matrices([each.detach().float() for each in parameters])
        self.momentum = torch.zeros_like(self.masters)

    def views(self, stacked: Tensor) -> list[Tensor]:
        """What belongs to each parameter, in its shape, of a tensor of the masters' shape."""
        parts = stacked.split([each.shape[:-2].numel() for each in self.parameters])
        return [part.view(each.shape) for part, each in zip(parts, self.parameters, strict=True)]

    def step(self, gradients: Tensor, rate: float, momentum: float, weight_decay: float) -> None:
        """One Muon update from gradients of the masters' shape, Nesterov momentum, decoupled weight decay."""
        self.momentum.lerp_(gradients, 1 - momentum)
        update = orthogonalise(gradients.lerp_(self.momentum, momentum))
        rows, columns = self.masters.shape[1:]
        self.masters.mul_(1 - rate * weight_decay)
        self.masters.add_(update, alpha=-rate * max(1.0, rows / columns) ** 0.5)


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly, by five Newton-Schulz steps in bfloat16; (N, rows, columns)."""
    a, b, c = COEFFICIENTS
    result = matrices.bfloat16()
    tall = result.shape[1] > result.shape[2]
    if tall:
        result = result.mT
    result = result / (torch.linalg.matrix_norm(result, keepdim=True) + TINY)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = result @ result.mT
        result = torch.baddbmm(result, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), result, beta=a)
    return result.mT if tall else result


class Optimizer:
    """The update of a whole model. Gradients are read from the parameters; masters are written back to them."""

    def __init__(self, model: PreTrainedModel, rates: Rates) -> None:
        self.rates = rates
        named = dict(model.named_parameters())
        roles = roles_of(model)
        hidden = {name: each for name, each in named.items() if roles[name] == "matrix"}
        self.stacks = [
            Stack(
                [name for name, each in hidden.items() if each.shape[-2:] == shape],
                [each for each in hidden.values() if each.shape[-2:] == shape],
            )
            for shape in sorted({each.shape[-2:] for each in hidden.values()})
        ]
        self.rest = {name: each for name, each in named.items() if name not in hidden}
        self.rest_masters = {name: nn.Parameter(each.detach().float().clone()) for name, each in self.rest.items()}
        peak = {"embedding": rates.embedding, "output": rates.output, "norm": rates.norm}
        self.adamw = torch.optim.AdamW(
            [
                {
                    "params": [self.rest_masters[name]],
                    "lr": peak[roles[name]],
                    "peak": peak[roles[name]],
                }
                for name in self.rest
            ],
            betas=rates.betas,
            eps=rates.epsilon,
            weight_decay=0.0,
            fused=True,
        )

    @torch.no_grad()
    def step(self, step: int, share: float) -> float:
        """Apply the gradients at a share of the peak rates, clear them, and return their norm before clipping."""
        stacked = [_matrices([_gradient(each) for each in stack.parameters]).float() for stack in self.stacks]
        rest = {name: _gradient(each).float() for name, each in self.rest.items()}
        every = [*stacked, *rest.values()]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(every)))
        torch._foreach_mul_(every, (self.rates.clip_norm / (norm + TINY)).clamp(max=1.0))
        warm = min(1.0, step / self.rates.momentum_warmup_steps) if self.rates.momentum_warmup_steps else 1.0
        momentum = self.rates.momentum - 0.1 * (1 - warm)
        for stack, gradients in zip(self.stacks, stacked, strict=True):
            stack.step(gradients, self.rates.matrix * share, momentum, self.rates.weight_decay)
        for name, master in self.rest_masters.items():
            master.grad = rest[name]
        for group in self.adamw.param_groups:
            group["lr"] = group["peak"] * share
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        self.write_back()
        return float(norm)

    @torch.no_grad()
    def write_back(self) -> None:
        """Copy the masters into the parameters, in the parameters' precision, and clear the gradients."""
        for stack in self.stacks:
            torch._foreach_copy_([each.detach() for each in stack.parameters], stack.views(stack.masters))
        torch._foreach_copy_([each.detach() for each in self.rest.values()], list(self.rest_masters.values()))
        for each in (*self.rest.values(), *(each for stack in self.stacks for each in stack.parameters)):
            each.grad = None

    def masters(self) -> dict[str, Tensor]:
        """The weights in float32 by name: views, not copies."""
        found = {name: each.detach() for name, each in self.rest_masters.items()}
        for stack in self.stacks:
            found.update(zip(stack.names, stack.views(stack.masters), strict=True))
        return found

    def state(self) -> dict[str, Tensor]:
        """Everything that the next update depends on beside the masters, by name; all there from the first step on."""
        found: dict[str, Tensor] = {}
        for stack in self.stacks:
            for name, momentum in zip(stack.names, stack.views(stack.momentum), strict=True):
                found[f"momentum.{name}"] = momentum
        for name, master in self.rest_masters.items():
            for key, value in self.adamw.state[master].items():
                found[f"{key}.{name}"] = value
        return found

    @torch.no_grad()
    def load(self, masters: dict[str, Tensor], state: dict[str, Tensor]) -> None:
        """Take over saved masters and state. Raises KeyError for one that is missing."""
        for name, master in self.masters().items():
            master.copy_(masters[name])
        for stack in self.stacks:
            for name, momentum in zip(stack.names, stack.views(stack.momentum), strict=True):
                momentum.copy_(state[f"momentum.{name}"])
        for name, master in self.rest_masters.items():
            self.adamw.state[master] = {
                key: state[f"{key}.{name}"].to(master.device) for key in ("step", "exp_avg", "exp_avg_sq")
            }
        self.write_back()


def _matrices(tensors: list[Tensor]) -> Tensor:
    """Tensors of matrices of one shape as one, shape (matrices, rows, columns)."""
    return torch.cat([each.reshape(-1, *each.shape[-2:]) for each in tensors])


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None, "a parameter of the model had no part in the loss"
    return parameter.grad
