"""Liger's Triton kernels for norms, gated feed-forwards and rotary positions. Only torch and transformers.

liger-kernel (Hsu et al. 2024, arXiv:2410.10989) is optional and in no lock: it needs triton, which comes with torch's
CUDA build. Its public function replaces a model's layers and, for the whole process, the classes and the rotation of
transformers' module; here the module gets back what it had, and only this model keeps the kernels. Its cross-entropy is
not used: FusedLoss needs the loss of each token.
Covers: llama and qwen3.  Not covered: others. Not measured on a GPU. In triton's interpreter on a CPU, where the
kernels need changes (docs/log.md), loss and gradients of a small qwen3 in float32 agreed with the plain layers to
8e-7 (norm of the difference, relative; liger-kernel 0.8.5, triton 3.9.0).
"""

import importlib
import importlib.util
import sys
from types import FunctionType, MethodType
from typing import Any

from torch import nn
from transformers.modeling_utils import PreTrainedModel

ARCHITECTURES = ("llama", "qwen3")
PACKAGES = ("liger_kernel", "triton")
ROTATION = "apply_rotary_pos_emb"


def missing() -> list[str]:
    """Packages that are needed and not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def use(model: PreTrainedModel) -> None:
    """Replace a model's norms, feed-forwards and rotation, in place; parameters keep their names."""
    apply = getattr(
        importlib.import_module("liger_kernel.transformers"), f"apply_liger_kernel_to_{model.config.model_type}"
    )
    namespace = vars(sys.modules[type(model).__module__])
    before = dict(namespace)
    try:
        apply(rope=True, rms_norm=True, swiglu=True, cross_entropy=False, fused_linear_cross_entropy=False, model=model)
        rotation = namespace[ROTATION]
    finally:
        namespace.update(before)
    for layer in model.modules():
        if ROTATION in _names(layer):
            _rotate_with(layer, rotation)


def _names(layer: nn.Module) -> tuple[str, ...]:
    """What a layer's forward pass looks up in its module."""
    code = getattr(type(layer).forward, "__code__", None)
    return () if code is None else code.co_names


def _rotate_with(layer: nn.Module, rotation: Any) -> None:
    """Give one layer a forward pass that finds another rotation where it looks for its module's."""
    plain: Any = type(layer).forward
    forward = FunctionType(
        plain.__code__, {**plain.__globals__, ROTATION: rotation}, plain.__name__, plain.__defaults__, plain.__closure__
    )
    forward.__kwdefaults__ = plain.__kwdefaults__
    layer.forward = MethodType(forward, layer)
