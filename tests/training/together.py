"""One of two gloo workers that train the small run in every way. Run as a module: RANK FOLDER."""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from components.tokens.shards.order import places_of_step, samples_at
from components.training.engine.batches.batch import Batch
from components.training.engine.devices.parallel import World
from components.training.engine.figures import Report
from components.training.engine.model.architectures import build
from components.training.engine.trainer import Trainer
from components.training.engine.validation import nats
from tests.training.runs import SHAPE, TOKENS, batches_for, recipe, run_small

STEPS = 16  # of 8 samples: one epoch of 128
MODES = [(parallel, precision) for parallel in ("data", "sharded") for precision in ("float32", "bfloat16")]


class BrokenError(Exception):
    """Stands for the end of a process."""


def break_at(step: int) -> Callable[[Report], None]:
    def report(row: Report) -> None:
        if row.step == step:
            raise BrokenError

    return report


def logged(world: World, log: dict[int, list[int]]) -> Callable[[int], Batch]:
    """Batches that leave the numbers of their samples, by step: of one read again, the last time counts."""
    batches = batches_for(world)

    def read(step: int) -> Batch:
        log[step] = samples_at(places_of_step(step, 8, world.rank, world.size), 128, 0)[1].tolist()
        return batches(step)

    return read


def held_out(trainer: Trainer) -> float | None:
    """What validation does with a model, on one document that is longer than its context."""
    document = TOKENS[:50].astype(np.uint16)
    return trainer.evaluate(lambda model: nats(model, [document], 32, 0, "cpu"))


def every_way(folder: Path, world: World) -> float | None:
    """Unbroken runs, broken and resumed ones, activation checkpointing; last, a figure of a sharded model."""
    for parallel, precision in MODES:
        name = f"{parallel}-{precision}"
        how = recipe(micro=2, parallel=parallel, precision=precision)
        run_small(folder / name, steps=STEPS, how=how, world=world)
        every = recipe(micro=2, parallel=parallel, precision=precision, checkpoint_seconds=0.0)
        try:
            run_small(folder / f"{name}-broken", steps=STEPS, how=every, world=world, report=break_at(10))
        except BrokenError:
            run_small(folder / f"{name}-broken", steps=STEPS, how=every, world=world)
    less = recipe(micro=2, parallel="sharded", activation_checkpointing=True)
    run_small(folder / "recomputed", steps=STEPS, how=less, world=world)
    trainer = Trainer(build(SHAPE, 0, 0), less, world, lambda _: None)
    trainer.warm_up(batches_for(world)(0))
    return held_out(trainer)


def elastic(folder: Path, world: World) -> dict[int, list[int]]:
    """Two data-parallel workers until step 5, one until step 10, two that shard to the end; what this one read."""
    log: dict[int, list[int]] = {}
    alone = World() if world.rank == 0 else None
    for who, stop, parallel in ((world, 5, "data"), (alone, 10, "data"), (world, STEPS + 1, "sharded")):
        here: dict[int, list[int]] = {}
        if who is not None:
            how = recipe(micro=2, parallel=parallel, checkpoint_seconds=0.0)
            with suppress(BrokenError):
                reads = logged(who, here)
                run_small(folder, steps=STEPS, how=how, world=who, batches=reads, report=break_at(stop))
        torch.distributed.barrier()
        # A lone worker reads again what both did: what the other one logged of those steps no longer counts.
        first = min(here) if here else stop - 6
        log = {step: ids for step, ids in log.items() if step < first} | here
    return log


if __name__ == "__main__":
    torch.set_num_threads(1)
    me, out = World(rank=int(sys.argv[1]), size=2), Path(sys.argv[2])
    torch.distributed.init_process_group("gloo", init_method=f"file://{out}/place", rank=me.rank, world_size=me.size)
    figure = every_way(out, me)
    samples = elastic(out / "elastic", me)
    torch.distributed.destroy_process_group()
    (out / f"{me.rank}.json").write_text(json.dumps({"figure": figure, "samples": samples}))
