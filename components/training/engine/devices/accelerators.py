"""Ways to compute the same model faster: which can be used where, and how a trainer takes them up. Plain torch.

    liger    Triton kernels in the place of a model's norms, feed-forwards and rotations (liger.py)
    graphs   CUDA graphs: a micro-batch's kernels launched as one (torch.compile's mode reduce-overhead)
    float8   products of linear layers in 8 bits (float8.py)

Masters, checkpoints and exported models are the same with all of them.
Not covered: graphs with several workers or with sharded ones. Not measured on a GPU.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import nn
from transformers.modeling_utils import PreTrainedModel

from components.training.engine.model import float8, liger

Accelerator = Literal["liger", "graphs", "float8"]
ACCELERATORS: tuple[Accelerator, ...] = get_args(Accelerator)
FLOAT8_FROM = (8, 9)  # compute capability: Ada, Hopper and later


class AcceleratorError(ValueError):
    """Something that was asked for by name cannot be used here."""


def objection(
    name: Accelerator, *, architecture: str, device: str, precision: str, compiled: bool, workers: int = 1
) -> str | None:
    """Why it cannot be used, in one line: what was found, what is needed, what to do. None when it can."""
    reason = {
        "liger": lambda: _against_liger(architecture, device),
        "graphs": lambda: _against_graphs(device, compiled, workers),
        "float8": lambda: _against_float8(device, precision),
    }[name]()
    return reason and f"{name}: {reason}, or take {name} out of the accelerators"


def _against_liger(architecture: str, device: str) -> str | None:
    if architecture not in liger.ARCHITECTURES:
        return f"found architecture {architecture}, needed {' or '.join(liger.ARCHITECTURES)}; choose one of these"
    if device == "cpu":
        return "found device cpu, needed cuda; train on a GPU"
    if missing := liger.missing():
        return f"found no {' and no '.join(missing)}, needed both of liger_kernel and triton; install liger-kernel"
    return None


def _against_graphs(device: str, compiled: bool, workers: int) -> str | None:
    if device == "cpu":
        return "found device cpu, needed cuda; train on a GPU"
    if not compiled:
        return "found an eager model, needed a compiled one; compile it (plans do from plan.compile_from_seconds on)"
    if workers > 1:
        return f"found {workers} workers, needed one; train with one"
    return None


def _against_float8(device: str, precision: str) -> str | None:
    if precision != "bfloat16":
        return f"found precision {precision}, needed bfloat16; train in bfloat16"
    if device == "cpu":
        return None
    if not torch.cuda.is_available():
        return "found no CUDA device, needed one; train on a GPU"
    capability = torch.cuda.get_device_capability(device)
    if capability < FLOAT8_FROM:
        version, needed = (".".join(map(str, each)) for each in (capability, FLOAT8_FROM))
        return f"found a GPU of compute capability {version}, needed {needed}; train on a newer GPU"
    return None


def take_up(
    model: PreTrainedModel,
    names: Sequence[Accelerator],
    *,
    device: str,
    precision: str,
    compiled: bool,
    workers: int,
) -> None:
    """Change a model in place for training. Raises AcceleratorError for what cannot be used here."""
    architecture = model.config.model_type
    for name in names:
        against = objection(
            name, architecture=architecture, device=device, precision=precision, compiled=compiled, workers=workers
        )
        if against:
            raise AcceleratorError(against)
    if "liger" in names:
        liger.use(model)
    if "float8" in names:
        try:
            float8.swap(model)
        except ValueError as error:
            raise AcceleratorError(str(error)) from error


def before_replay(model: nn.Module) -> None:
    """What the replay of a graph needs before each micro-batch.

    Its outputs lie in the graph's own memory and are overwritten by the next replay. A gradient is such an output, and
    a parameter without one would keep it as its own: each gets a gradient outside, which is added to.
    """
    torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
    for each in model.parameters():
        if each.grad is None:
            each.grad = torch.zeros_like(each)
