"""How fast the trainer trains on a GPU. Needs torch, transformers, numpy and safetensors alone.

Trains decoders of 350M and 1.3B parameters with the very Trainer that a pretrain stage runs, forward, backward and
update, and prints tokens per second, memory, and the share of two peaks that the model's FLOPs make of: what the maker
says of the device (dense, bfloat16), and one large product timed in the same run. FLOPs are 6 per parameter and token
and attention's 12 * layers * width * T; the causal half is not subtracted.

    python -m benchmarks.gpu_pretrain --size 1.3b --tokens train.npy
    torchrun --nproc-per-node 8 -m benchmarks.gpu_pretrain --parallel sharded
    python -m benchmarks.gpu_pretrain --device cpu --size tiny      the same code on any machine

Each row is trained with none of the accelerators (components/training/engine/devices/accelerators.py), each alone, and
all that can be used; one that cannot be used here leaves a line that says why. Shares of peaks are of bfloat16's, in
float8 too.

Covers: eager and compiled, bfloat16 and float32 (TF32), float8 products, CUDA graphs, Liger's kernels where
liger-kernel is installed, several GPUs of one machine.
Not covered: documents kept apart inside a window. No GPU was at hand when this was written: not measured.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from components.training.engine.batches.batch import Batch, next_token_batch
from components.training.engine.devices.accelerator_trial import RATES
from components.training.engine.devices.accelerators import ACCELERATORS, Accelerator, objection
from components.training.engine.devices.memory import peak_bytes
from components.training.engine.figures import gemm_flops
from components.training.engine.model.architectures import build
from components.training.engine.model.shape import Architecture, Shape, shape_of
from components.training.engine.trainer import DTYPES, OutOfMemoryError, Precision, Recipe, Trainer, World

UNTIMED_STEPS = 3
ARCHITECTURE: Architecture = "qwen3"
# bfloat16 FLOP/s of dense products as the makers' data sheets say; the first name that the device's contains.
DATA_SHEETS = {
    "B200": 2250e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A decoder, and the samples of one update."""

    layers: int
    width: int
    head_width: int
    vocabulary_size: int
    context: int
    batch_samples: int
    micro_batch_samples: int

    @property
    def shape(self) -> Shape:
        """As qwen3 with two query heads to a key-value head."""
        return shape_of(
            architecture=ARCHITECTURE,
            vocabulary_size=self.vocabulary_size,
            context=self.context,
            layers=self.layers,
            width=self.width,
            head_width=self.head_width,
            queries_per_key_value=2,
            rope_theta=10_000.0,
            tied=False,
        )


SIZES = {
    "tiny": Size(
        layers=2,
        width=64,
        head_width=32,
        vocabulary_size=256,
        context=64,
        batch_samples=4,
        micro_batch_samples=2,
    ),
    "350m": Size(
        layers=24,
        width=1024,
        head_width=64,
        vocabulary_size=32_768,
        context=2048,
        batch_samples=64,
        micro_batch_samples=32,
    ),
    "1.3b": Size(
        layers=24,
        width=2048,
        head_width=128,
        vocabulary_size=32_768,
        context=2048,
        batch_samples=64,
        micro_batch_samples=16,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table, over all workers; peaks are of one device, medians over steps."""

    size: str
    parameters: int
    precision: str
    compiled: bool
    accelerators: list[Accelerator]
    workers: int
    micro_batch_samples: int
    tokens_per_second: float
    share_of_data_sheet: float | None
    share_of_gemm: float
    gemm_flops: float
    memory_bytes: int
    warm_up_seconds: float
    first_loss: float
    last_loss: float
    notes: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a row computes."""

    precision: Precision
    compiled: bool
    accelerators: tuple[Accelerator, ...] = ()

    @property
    def name(self) -> str:
        """For people."""
        return "+".join([self.precision, "compiled" if self.compiled else "eager", *self.accelerators])


def measure(name: str, way: Way, world: World, options: argparse.Namespace) -> Row:
    """Train one model for a few steps."""
    size, notes = SIZES[name], list[str]()
    if world.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    peak = gemm_flops(DTYPES[way.precision], world.device)
    trainer = Trainer(build(size.shape, 0, 0), recipe_of(size, way, options), world, notes.append)
    batches = [batch_of(size, step, world, options.tokens) for step in range(UNTIMED_STEPS + options.steps)]
    started = time.perf_counter()
    trainer.warm_up(batches[0])
    warm_up_seconds = time.perf_counter() - started
    losses, seconds = [], []
    for step, batch in enumerate(batches):
        started = time.perf_counter()
        losses.append(trainer.accumulate(step, batch).loss)
        trainer.update(step, 1.0)
        if world.device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    per_second = batches[0].num_tokens * world.size / statistics.median(seconds[UNTIMED_STEPS:])
    needed = size.shape.training_flops_per_token(size.context) * per_second / world.size
    listed = data_sheet_flops(world.device) if way.precision == "bfloat16" else None
    return Row(
        size=name,
        parameters=size.shape.parameters,
        precision=way.precision,
        compiled=trainer.loss is not trainer.eager or (way.compiled and trainer.sharded),
        accelerators=list(way.accelerators),
        workers=world.size,
        micro_batch_samples=trainer.micro_batch_samples,
        tokens_per_second=per_second,
        share_of_data_sheet=None if listed is None else needed / listed,
        share_of_gemm=needed / peak,
        gemm_flops=peak,
        memory_bytes=peak_bytes(world.device),
        warm_up_seconds=warm_up_seconds,
        first_loss=losses[0],
        last_loss=losses[-1],
        notes=notes,
    )


def recipe_of(size: Size, way: Way, options: argparse.Namespace) -> Recipe:
    """As a stage's, but for documents, which may see each other."""
    return Recipe(
        precision=way.precision,
        compiled=way.compiled,
        accelerators=way.accelerators,
        micro_batch_samples=options.micro_batch_samples or size.micro_batch_samples,
        rates=RATES,
        report_every_steps=1,
        validate_every_steps=1,
        checkpoint_seconds=float("inf"),
        isolate_documents=False,
        parallel=options.parallel,
        activation_checkpointing=options.activation_checkpointing,
    )


def batch_of(size: Size, step: int, world: World, tokens: Path | None) -> Batch:
    """This worker's samples of a step, from a file of tokens or drawn from few, so that a loss can fall."""
    rows, length = size.batch_samples, size.context + 1
    if tokens is None:
        drawn = np.random.default_rng([step, world.rank])
        return next_token_batch(drawn.integers(size.vocabulary_size // 8, size=(rows, length)))
    every: NDArray[Any] = np.load(tokens, mmap_mode="r")
    starts = (np.arange(rows) + (step * world.size + world.rank) * rows) * length % (len(every) - length)
    windows = np.stack([every[start : start + length] for start in starts]).astype(np.int64)
    if (largest := int(windows.max())) >= size.vocabulary_size:
        raise ValueError(f"{tokens}: token {largest}, the model knows {size.vocabulary_size}; give tokens below that")
    return next_token_batch(windows)


def data_sheet_flops(device: str) -> float | None:
    """What the maker says of a GPU's dense bfloat16 products; None for a device that is not in the table."""
    if device == "cpu":
        return None
    name = torch.cuda.get_device_name(device)
    return next((flops for each, flops in DATA_SHEETS.items() if each in name), None)


def table(rows: list[Row], device: str) -> str:
    """Rows for people."""
    name = "this CPU" if device == "cpu" else torch.cuda.get_device_name(device)
    lines = [
        f"{name}, torch {torch.__version__}",
        f"{'size':6}{'precision':>11}{'compiled':>10}{'with':>22}{'workers':>9}{'micro':>7}{'tokens/s':>12}"
        f"{'of sheet':>10}{'of GEMM':>9}{'GEMM TFLOP/s':>14}{'GiB':>8}{'warm-up s':>11}{'loss':>16}",
    ]
    for row in rows:
        sheet = "-" if row.share_of_data_sheet is None else f"{row.share_of_data_sheet:.1%}"
        lines.append(
            f"{row.size:6}{row.precision:>11}{'yes' if row.compiled else 'no':>10}"
            f"{'+'.join(row.accelerators) or 'none':>22}{row.workers:9}"
            f"{row.micro_batch_samples:7}{row.tokens_per_second:12,.0f}{sheet:>10}{row.share_of_gemm:9.1%}"
            f"{row.gemm_flops / 1e12:14.1f}{row.memory_bytes / 2**30:8.1f}{row.warm_up_seconds:11.1f}"
            f"{row.first_loss:9.2f} ->{row.last_loss:5.2f}"
        )
        lines += [f"    {note}" for note in row.notes]
    return "\n".join(lines)


def joined(device: str) -> World:
    """This process's place among torchrun's; alone without it."""
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    if size > 1:
        torch.distributed.init_process_group("gloo" if device == "cpu" else "nccl")
    return World(rank=rank, size=size, device=device)


def options_of(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_pretrain", description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--size", choices=[*SIZES], nargs="+", default=["350m", "1.3b"])
    parser.add_argument("--precision", choices=[*DTYPES], nargs="+", default=["bfloat16"])
    parser.add_argument("--mode", choices=["eager", "compiled"], nargs="+", default=["eager", "compiled"])
    parser.add_argument(
        "--accelerators",
        choices=["none", *ACCELERATORS, "all"],
        nargs="+",
        help="a row for each, all: those that can be used together; without it all of these on cuda, none on cpu",
    )
    parser.add_argument("--steps", type=int, default=10, help="timed ones, after three")
    parser.add_argument("--tokens", type=Path, help="one-dimensional .npy of token ids; without it they are drawn")
    parser.add_argument("--micro-batch-samples", type=int, help="halved by itself where memory is short")
    parser.add_argument("--parallel", choices=["data", "sharded"], default="data", help="of several GPUs")
    parser.add_argument("--activation-checkpointing", action="store_true")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Measure each combination and print the table; 2 without the device that was asked for."""
    options = options_of(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print(
            f"no CUDA device is seen by torch {torch.__version__}: run this on a GPU machine, or try the code with "
            "--device cpu --size tiny",
            file=sys.stderr,
        )
        return 2
    world, rows = joined(options.device), list[Row]()
    for size in options.size:
        for way in ways_of(options, world):
            torch.compiler.reset()
            try:
                rows.append(measure(size, way, world, options))
            except (OutOfMemoryError, ValueError) as error:
                print(f"{size} {way.name}: {error}", file=sys.stderr)
                return 1
            except Exception as error:  # kernels' failures have no common class; the other rows go on
                if not way.accelerators:
                    raise
                print(f"{size} {way.name}: {type(error).__name__}: {error}", file=sys.stderr)
    if world.rank == 0 and rows:
        print(table(rows, world.device))
        if options.json:
            options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    if world.size > 1:
        torch.distributed.destroy_process_group()
    return 0 if rows else 1


def ways_of(options: argparse.Namespace, world: World) -> list[Way]:
    """What is measured of each size; says why what was asked for is left out."""
    every = ["none"] if options.device == "cpu" else ["none", *ACCELERATORS, "all"]
    found = []
    for precision, mode in itertools.product(options.precision, options.mode):
        against = {
            name: objection(
                name,
                architecture=ARCHITECTURE,
                device=world.device,
                precision=precision,
                compiled=mode == "compiled",
                workers=world.size,
            )
            for name in ACCELERATORS
        }
        for asked in options.accelerators or every:
            if asked in against and (reason := against[asked]):
                print(f"{precision} {mode}: left out: {reason}", file=sys.stderr)
                continue
            usable = tuple(name for name in ACCELERATORS if (asked == "all" and not against[name]) or asked == name)
            found.append(Way(precision=precision, compiled=mode == "compiled", accelerators=usable))
    return list(dict.fromkeys(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
