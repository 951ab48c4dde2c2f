"""Muon for hidden matrices and AdamW for the rest, or AdamW for all, on float32 masters of weights that may compute in
bfloat16.

Muon: Jordan et al. 2024 (kellerjordan.github.io/posts/muon). Matrices of one shape are orthogonalised together, in one
batched multiplication; torch.optim.Muon takes them one by one.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel

from components.training.engine.checkpoint import AVERAGE, WEIGHT, Piece
from components.training.engine.devices.parallel import Parallel, Share, World, share_of, summed
from components.training.engine.model.roles import Role, roles_of

# Quintic Newton-Schulz coefficients of the reference implementation, chosen for slope at zero, not for convergence.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
TINY = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Peak learning rates by role, and the rest of the update rule.

    optimizer       of hidden matrices: muon at `matrix`, or adamw at `adamw_matrix`, both with `weight_decay`
    average_decay   of the running average of the weights; 0 keeps none
    """

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
    optimizer: Literal["muon", "adamw"] = "muon"
    adamw_matrix: float = 0.003
    average_decay: float = 0.0


class Group:
    """Parameters that one rule updates together, and this worker's share of them: masters in float32, end to end."""

    def __init__(self, named: dict[str, nn.Parameter], share: Share) -> None:
        self.names = list(named)
        self.share = share
        self.masters = share.collect([each.detach() for each in named.values()])
        self.average: Tensor | None = None

    def gradients(self) -> Tensor:
        """This worker's share of the gradients, in float32 and in the masters' shape, free to be changed."""
        return self.share.collect([_gradient(each) for each in self.share.parameters]).view_as(self.masters)

    def publish(self) -> None:
        """Set the parameters to the masters, and clear their gradients."""
        self.share.publish(self.masters.detach().view(-1))
        for each in self.share.parameters:
            each.grad = None

    def pieces(self, prefix: str, owned: Tensor) -> list[Piece]:
        """What of each parameter lies in a tensor that is like the masters."""
        pieces, share = [], self.share
        for name, parameter, offset in zip(self.names, share.parameters, share.offsets, strict=True):
            begin, end = max(share.start, offset), min(share.end, offset + parameter.numel())
            if begin < end:
                part = owned.detach().view(-1)[begin - share.start : end - share.start]
                pieces.append(
                    Piece(name=f"{prefix}{name}", tensor=part, shape=tuple(parameter.shape), start=begin - offset)
                )
        return pieces


class Stack(Group):
    """Matrices of one shape: masters and momentum, shape (matrices of this worker, rows, columns).

    A parameter is one matrix or, of three dimensions, one for each expert.
    """

    def __init__(self, named: dict[str, nn.Parameter], share: Share, shape: torch.Size) -> None:
        super().__init__(named, share)
        self.masters = self.masters.view(-1, *shape)
        self.momentum = torch.zeros_like(self.masters)

    def step(self, gradients: Tensor, rate: float, momentum: float, weight_decay: float, dtype: torch.dtype) -> None:
        """One Muon update from gradients of the masters' shape, Nesterov momentum, decoupled weight decay; the update's
        direction is computed in `dtype`."""
        if not len(self.masters):
            return
        self.momentum.lerp_(gradients, 1 - momentum)
        update = orthogonalise(gradients.lerp_(self.momentum, momentum), dtype)
        rows, columns = self.masters.shape[1:]
        self.masters.mul_(1 - rate * weight_decay)
        self.masters.add_(update, alpha=-rate * max(1.0, rows / columns) ** 0.5)


def orthogonalise(matrices: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly, by five Newton-Schulz steps in `dtype`; (N, rows, columns)."""
    a, b, c = COEFFICIENTS
    result = matrices.to(dtype)
    tall = result.shape[1] > result.shape[2]
    if tall:
        result = result.mT
    result = result / (torch.linalg.matrix_norm(result, keepdim=True) + TINY)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = result @ result.mT
        result = torch.baddbmm(result, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), result, beta=a)
    return result.mT if tall else result


class Optimizer:
    """The update of a whole model. Gradients are read from the parameters; masters are written back to them.

    With several workers each holds its share of masters and momenta, see parallel.py.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        rates: Rates,
        world: World,
        parallel: Parallel = "data",
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        """`dtype`: what the model computes in, and Muon its directions. A processor without bfloat16 imitates it: of a
        step of 1.7M parameters, 1.26 s went into the directions on one core with AVX2, in float32 0.06 s."""
        self.rates = rates
        self.dtype = dtype
        self.world = world
        share = share_of(world, parallel)
        roles = roles_of(model)
        by_shape: dict[torch.Size, dict[str, nn.Parameter]] = {}
        by_rate: dict[str, tuple[Role, dict[str, nn.Parameter]]] = {}
        learning = {name: each for name, each in model.named_parameters() if each.requires_grad}
        for name, each in learning.items():
            if roles[name] == "matrix" and rates.optimizer == "muon":
                by_shape.setdefault(each.shape[-2:], {})[name] = each
            else:  # each embedding by itself, all small ones and all matrices together
                key = name if roles[name] in ("embedding", "output") else roles[name]
                by_rate.setdefault(key, (roles[name], {}))[1][name] = each
        self.stacks = [
            Stack(by_shape[shape], share(list(by_shape[shape].values()), shape.numel()), shape)
            for shape in sorted(by_shape)
        ]
        peak = {
            "embedding": rates.embedding,
            "output": rates.output,
            "norm": rates.norm,
            "matrix": rates.adamw_matrix,
        }
        self.rest: list[Group] = []
        options = []
        for role, named in by_rate.values():
            unit = next(iter(named.values())).shape[1:].numel() if role in ("embedding", "output") else 1
            self.rest.append(Group(named, share(list(named.values()), unit)))
            self.rest[-1].masters = nn.Parameter(self.rest[-1].masters)
            decay = rates.weight_decay if role == "matrix" else 0.0
            options.append(
                {"params": [self.rest[-1].masters], "lr": peak[role], "peak": peak[role], "weight_decay": decay}
            )
        self._collected: tuple[list[Tensor], Tensor] | None = None
        self.adamw = torch.optim.AdamW(options, betas=rates.betas, eps=rates.epsilon, fused=True)
        for group in self.rest:  # which torch would do in the first step: a checkpoint may come before
            self.adamw.state[group.masters] = {
                "step": torch.zeros((), device=world.device),
                "exp_avg": torch.zeros_like(group.masters),
                "exp_avg_sq": torch.zeros_like(group.masters),
            }
        if rates.average_decay:
            for group in self.groups:
                group.average = group.masters.detach().clone()

    @property
    def groups(self) -> list[Group]:
        """All parameters, each once."""
        return [*self.stacks, *self.rest]

    @torch.no_grad()
    def collect(self) -> float:
        """Take this worker's share of the gradients for the next `step`, once, and return the norm of all before
        clipping. Raises FloatingPointError when that is not a number."""
        if self._collected is not None:
            return float(self._collected[1])
        gradients = [group.gradients() for group in self.groups]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        norm = summed(norm.square(), self.world).sqrt()
        if not math.isfinite(gradient_norm := float(norm)):
            raise FloatingPointError(f"the norm of the gradient is {gradient_norm}")
        self._collected = gradients, norm
        return gradient_norm

    @torch.no_grad()
    def step(self, step: int, share: float) -> float:
        """Apply the gradients at a share of the peak rates, clear them, and return their norm before clipping.

        Raises FloatingPointError, before anything is changed, when that is not a number.
        """
        gradient_norm = self.collect()
        assert self._collected is not None
        gradients, norm = self._collected
        torch._foreach_mul_(gradients, (self.rates.clip_norm / (norm + TINY)).clamp(max=1.0))
        warm = min(1.0, step / self.rates.momentum_warmup_steps) if self.rates.momentum_warmup_steps else 1.0
        momentum = self.rates.momentum - 0.1 * (1 - warm)
        for stack, each in zip(self.stacks, gradients[: len(self.stacks)], strict=True):
            stack.step(each, self.rates.matrix * share, momentum, self.rates.weight_decay, self.dtype)
        for group, each in zip(self.rest, gradients[len(self.stacks) :], strict=True):
            group.masters.grad = each
        for option in self.adamw.param_groups:
            option["lr"] = option["peak"] * share
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        self._average(step)
        self.write_back()
        return gradient_norm

    def _average(self, step: int) -> None:
        """Move the running averages; the first steps count more than 1 - decay, or the initial weights would."""
        decay = min(self.rates.average_decay, (1 + step) / (10 + step))
        for group in self.groups:
            if group.average is not None:
                group.average.lerp_(group.masters.detach(), 1 - decay)

    @torch.no_grad()
    def write_back(self) -> None:
        """Copy the masters into the parameters, in the parameters' precision, and clear the gradients."""
        self._collected = None
        for group in self.groups:
            group.publish()

    def pieces(self) -> list[Piece]:
        """Everything that the next update depends on, as this worker holds it: to be saved, and to be loaded into."""
        pieces = [piece for group in self.groups for piece in group.pieces(WEIGHT, group.masters)]
        for group in self.groups:
            pieces += group.pieces(AVERAGE, group.average) if group.average is not None else []
        for stack in self.stacks:
            pieces += stack.pieces("momentum.", stack.momentum)
        for group in self.rest:
            state = self.adamw.state[group.masters]
            pieces += group.pieces("exp_avg.", state["exp_avg"]) + group.pieces("exp_avg_sq.", state["exp_avg_sq"])
            pieces.append(Piece(name=f"step.{group.names[0]}", tensor=state["step"].view(1), shape=(1,)))
        return pieces


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None, "a parameter of the model had no part in the loss"
    return parameter.grad
