"""Linear layers whose three products run in 8-bit floating point. Only torch and transformers.

Each operand is scaled by its largest number and rounded when it is used (dynamic, one scale a tensor): e4m3 for inputs
and weights, e5m2 for gradients, which need its range (Micikevicius et al. 2022, arXiv:2209.05433). As torchao's
Float8Linear with its tensorwise recipe (github.com/pytorch/ao, torchao/float8) and nanochat's fp8.py, on torch's own
`_scaled_mm`. No state is kept between steps, so checkpoints, resumed runs and exported models are those of the plain
layers: a swapped layer keeps its parameters and its name.

Taken: the linear layers inside a model's blocks, both of whose sides are multiples of 16. Not embeddings and output.
Without gradients (validation) a layer multiplies in the parameters' own precision: figures are of what is exported.
Covers: any dense model of transformers, weights of several workers, whole or gathered by FSDP2 (in bfloat16).
Not covered: experts, which are no linear layers; one scale a row; gathering in 8 bits. Not measured on a GPU. On a CPU
torch multiplies the same numbers, slower than in bfloat16.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from components.training.engine.devices.parallel import blocks_of

MULTIPLE = 16  # of every side of a product on tensor cores
TINY = 1e-12
FORWARD, BACKWARD = torch.float8_e4m3fn, torch.float8_e5m2


def rounded(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """`values` times a scale that takes the largest of them to the largest of `dtype`, and that scale's inverse, ()."""
    largest = torch.finfo(dtype).max
    # In float64: compiled and eager divisions in float32 differ in the last bit (torchao does the same).
    scale = (largest / values.abs().amax().double().clamp(min=TINY)).float()
    return (values.float() * scale).clamp(-largest, largest).to(dtype), scale.reciprocal()


def _by_columns(matrix: Tensor) -> Tensor:
    """The same matrix, laid out as the second factor of a product must be."""
    return matrix.mT.contiguous().mT


class Float8Product(torch.autograd.Function):
    """inputs @ weight.mT with all three products in 8 bits."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor) -> Tensor:
        """inputs (N, D), weight (F, D) -> (N, F) in the inputs' precision; N, D and F are multiples of 16."""
        of_inputs, of_weight = rounded(inputs, FORWARD), rounded(weight, FORWARD)
        ctx.save_for_backward(*of_inputs, *of_weight)
        return _product(of_inputs, (of_weight[0].mT, of_weight[1]), inputs.dtype, fast=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients by inputs and weight, summed with full precision, where the forward product need not be."""
        inputs, inputs_scale, weight, weight_scale = ctx.saved_tensors
        float8_gradient, scale = rounded(gradient, BACKWARD)
        of_inputs = _product((float8_gradient, scale), (_by_columns(weight), weight_scale), gradient.dtype, fast=False)
        transposed = (float8_gradient.mT.contiguous(), scale)
        of_weight = _product(transposed, (_by_columns(inputs), inputs_scale), gradient.dtype, fast=False)
        return of_inputs, of_weight


def _product(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor], dtype: torch.dtype, *, fast: bool) -> Tensor:
    result: Tensor = torch._scaled_mm(
        left[0], right[0], scale_a=left[1], scale_b=right[1], out_dtype=dtype, use_fast_accum=fast
    )
    return result


class Float8Linear(nn.Linear):
    """A linear layer whose products are Float8Product's while it is trained in bfloat16."""

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., D) -> (..., F). Plain without gradients, and where rows are no multiple of 16."""
        rows = inputs.numel() // inputs.shape[-1]
        if not torch.is_grad_enabled() or rows % MULTIPLE:
            return functional.linear(inputs, self.weight, self.bias)
        flat = inputs.reshape(rows, inputs.shape[-1])
        product: Tensor = Float8Product.apply(flat, self.weight)  # type: ignore[no-untyped-call]
        result = product.view(*inputs.shape[:-1], self.weight.shape[0])
        return result if self.bias is None else result + self.bias


def swap(model: nn.Module) -> list[str]:
    """Let the linear layers of a model's blocks multiply in 8 bits, in place. Returns their names.

    Raises ValueError when there is none to take.
    """
    names = []
    inside = {layer for block in blocks_of(model) for layer in block.modules()}
    for name, layer in model.named_modules():
        if type(layer) is nn.Linear and layer in inside and not any(side % MULTIPLE for side in layer.weight.shape):
            layer.__class__ = Float8Linear  # its parameters stay the very same
            names.append(name)
    if not names:
        raise ValueError(
            f"float8: found no linear layer in a block of {type(model).__name__} with sides that are multiples of "
            f"{MULTIPLE}; take float8 out of the accelerators"
        )
    return names
