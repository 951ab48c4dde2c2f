"""A few real steps on this machine: whether to compile, which precision, how fast each size is.

torch is imported only here and only when something is measured: fixed mode and tables need none of it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from components.core.config import environment
from components.training.config import PlanConfig, Precision
from components.training.engine.devices import cores
from components.training.engine.model.shape import Shape, stand_in

# A shape is probed for at most this share of probe_seconds; the compiler's check takes the rest.
SHARE_PER_SIZE = 0.15
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
# A processor without bfloat16 imitates it: 1.7 GFLOP/s where float32 has 149, an hour for a step of 135M parameters.
IMITATED = 0.5


def _loaded(config: PlanConfig) -> ModuleType:
    """The module `timed_steps`, loaded so that its threads wait as those of the worker will."""
    before, waiting = environment(), cores.waiting(config.num_workers, config.device)
    os.environ.update(waiting)
    from components.training.engine.devices import timed_steps  # noqa: PLC0415 - fixed mode needs no torch

    for name in waiting:  # OpenMP has read them; children wait as this process was told to
        os.environ.pop(name)
    os.environ.update(before)
    return timed_steps


@contextmanager
def _as_trained(config: PlanConfig) -> Iterator[ModuleType]:
    """`timed_steps`; within, its threads are on cores of their own where those of the worker will be."""
    probe = _loaded(config)
    own = cores.has_machine(config.num_workers, config.device)
    with cores.pinned(probe.torch.get_num_threads() if own else 1):
        yield probe


def compiles(config: PlanConfig, training_seconds: float) -> tuple[bool, tuple[str, ...]]:
    """Whether compilation pays and works, and why not."""
    left = training_seconds - config.compile_seconds
    if left < max(config.compile_from_seconds, config.minimum_training_seconds):
        return False, (f"eager: compilation would leave {left:.0f} s for training",)
    fault = _loaded(config).compiler_fault()  # pinned, the compiler's processes would share one core
    return fault is None, (f"eager: no working compiler ({fault})",) if fault else ()


def fastest_precision(config: PlanConfig, shape: Shape, compiled: bool) -> tuple[Precision, dict[str, float]]:
    """The faster precision, and the figures it was chosen by (per second; more is better)."""
    limit = config.probe_seconds * SHARE_PER_SIZE
    rows = config.micro_batch_samples * config.sequence_length
    products = {each: _loaded(config).product_flops(each, config.device) for each in PRECISIONS}
    if products["bfloat16"] < IMITATED * products["float32"]:
        return "float32", {f"{each}_product_flops": value for each, value in products.items()}
    figures: dict[Precision, float] = {}
    for precision in PRECISIONS:
        if compiled:
            with _as_trained(config) as probe:
                figures[precision] = probe.multiplication_flops(precision, shape, rows, config.device, limit / 2)
        else:
            figures[precision] = tokens_per_second(config, shape, precision, compiled)
    unit = "multiplication_flops" if compiled else "tokens_per_second"
    return max(figures, key=lambda each: figures[each]), {f"{each}_{unit}": value for each, value in figures.items()}


def tokens_per_second(config: PlanConfig, shape: Shape, precision: Precision, compiled: bool) -> float:
    """Over all workers; a compiled speed is the eager one times the configured ratio."""
    with _as_trained(config) as probe:
        seconds: float = probe.step_seconds(
            shape if shape.counted is None else stand_in(shape),
            precision,
            samples=config.micro_batch_samples,
            sequence_length=config.sequence_length,
            device=config.device,
            limit_seconds=config.probe_seconds * SHARE_PER_SIZE,
        )
    tokens = config.micro_batch_samples * config.sequence_length
    # Workers on one machine's cores share them; each GPU is a machine of its own.
    workers = config.num_workers if config.device == "cuda" else 1
    return tokens / seconds * workers * (config.compiled_speedup if compiled else 1.0)
